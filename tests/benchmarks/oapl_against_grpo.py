"""`python -m tests.benchmarks.oapl_against_grpo`: OAPL against GRPO on sums: the same rollouts and steps, three seeds.

SmolLM2-135M, LoRA; 640 rollouts and 20 optimiser steps a run. GRPO makes 32 rollouts a step; OAPL makes 128 for four
steps and moves its reference five times. Shown: the mean reward of each 128 rollouts, and accuracy on held-out sums.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from data_recipes.files import read_json, read_jsonl
from tests.pipelines.grpo_runs import SUMS

ROOT = Path(__file__).parents[2]
SEEDS, GROUP = (1, 2, 3), 128
T95 = 4.303
"""Student's t for three runs."""
SHARED = {
    **{"lora": {"r": 16, "lora_alpha": 32}, "max_steps": 20, "num_generations": 8, "max_completion_length": 12},
    **{"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "save_strategy": "no"},
}
OBJECTIVES = {
    "grpo": {"learning_rate": 2e-4},
    "oapl": {"learning_rate": 2e-4, "oapl": {}, "steps_per_generation": 8},
}


def whetstone(*arguments: str) -> None:
    """Run a command of ours; what it says on failure ends the benchmark."""
    command = [sys.executable, "-m", "launch.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-1000:] + done.stderr[-3000:])


def interval(values: list[float]) -> str:
    """Return the mean over seeds and its 95 % half-width."""
    spread = T95 * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.mean(values):5.1f} ± {100 * spread:4.1f}"


def main() -> None:
    """Train the six runs, evaluate them in one engine, print both tables."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(SUMS)
    head = {"name": "oapl", "model": "smollm2-135m-instruct", "recipe": "recipe.yaml", "engine": {"max_model_len": 128}}
    runs = {f"{objective}-{seed}": (objective, seed) for objective in OBJECTIVES for seed in SEEDS}
    for name, (objective, seed) in runs.items():
        file = folder / f"{name}.yaml"
        about = {**head, "output_dir": str(folder / name), "seed": seed, "grpo": {**SHARED, **OBJECTIVES[objective]}}
        file.write_text(yaml.safe_dump(about))
        whetstone("run", str(file))
        print(f"{name} trained", flush=True)
    evaluation = {
        "benchmarks": [{"type": "heldout", "max_tokens": 12, "bits_per_byte": False}],
        "models": {name: {"model": str(folder / name / "grpo" / "model")} for name in runs},
        "baselines": {"base": {}},
    }
    file = folder / "eval.yaml"
    file.write_text(yaml.safe_dump({**head, "output_dir": str(folder / "eval"), "seed": 1, "eval": evaluation}))
    whetstone("run", str(file))

    print("mean reward of each 128 rollouts, percent, over three seeds")
    for objective in OBJECTIVES:
        curves = []
        for seed in SEEDS:
            made = read_jsonl(folder / f"{objective}-{seed}" / "grpo" / "rollouts.jsonl")
            rewards = [one["reward"] or 0.0 for one in made]
            curves.append([statistics.mean(rewards[at : at + GROUP]) for at in range(0, len(rewards), GROUP)])
        print(f"{objective}: " + " | ".join(interval(list(column)) for column in zip(*curves, strict=True)))
    print("held-out accuracy, percent")
    scores = {}
    for result in (folder / "eval" / "eval").glob("*/results.json"):
        found = read_json(result)
        of_items = found["benchmarks"]["heldout"]["scores"]["chain_sum"]
        scores[found["name"]] = statistics.mean(of_items.values())
    print(f"base: {100 * scores['base']:.1f}")
    for objective in OBJECTIVES:
        of_seeds = [scores[f"{objective}-{seed}"] for seed in SEEDS]
        print(f"{objective}: {interval(of_seeds)} {json.dumps([round(100 * one, 1) for one in of_seeds])}")


if __name__ == "__main__":
    main()
