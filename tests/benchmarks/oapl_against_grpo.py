"""`python -m tests.benchmarks.oapl_against_grpo [FOLDER]`: OAPL against GRPO on one task, three seeds, equal rollouts.

A model of two layers, random weights and a vocabulary of bytes learns to write vowels (the reward is their share of the
letters): a run takes seconds, and every sample has a reward. 1,920 rollouts and 60 optimiser steps a run. GRPO makes 32
rollouts a step; OAPL makes 128, learns from them for four steps, and then moves its reference. All at the same
learning rate; OAPL also with betas that fit the spread of these rewards. Shown: the mean reward of each 256 rollouts,
and of greedy answers to held-out questions.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from data_recipes.files import read_json, read_jsonl
from tests.pipelines.grpo_runs import SUMS, VOWELS

ROOT = Path(__file__).parents[2]
SEEDS, RATE, GROUP = (1, 2, 3), 3e-3, 256
T95 = 4.303
"""Student's t for three runs."""
SHARED = {
    **{"dtype": "float32", "bf16": False, "use_vllm": False, "max_steps": 60, "num_generations": 8},
    **{"max_completion_length": 16, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 2},
    **{"save_strategy": "no", "lr_scheduler_type": "constant", "warmup_steps": 0},
}
OBJECTIVES = {
    "grpo": {},
    "oapl": {"oapl": {}, "steps_per_generation": 8},
    "oapl, betas 0.05": {"oapl": {"beta1": 0.05, "beta2": 0.05}, "steps_per_generation": 8},
}


def tiny_model(folder: Path) -> str:
    """Write the model and its tokenizer, a token a byte."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bytes_alone = ByteLevelBPETokenizer()
    bytes_alone.train_from_iterator([], vocab_size=258, special_tokens=["<end>", "<pad>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_alone, eos_token="<end>", pad_token="<pad>")
    tokenizer.chat_template = (
        "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=512, **shape, **ids)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def whetstone(folder: Path, *arguments: str) -> None:
    """Run a command of ours; what it says on failure ends the benchmark."""
    command = [sys.executable, "-m", "launch.cli", *arguments]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **threads}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-1000:] + done.stderr[-3000:])


def _name(objective: str, seed: int) -> str:
    return f"{objective.replace(', ', '-').replace(' ', '-')}-{RATE:g}-{seed}"


def interval(values: list[float]) -> str:
    """Return the mean over seeds and its 95 % half-width."""
    spread = T95 * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.mean(values):5.1f} ± {100 * spread:4.1f}"


def main() -> None:
    """Train the runs, let them answer held-out questions, print both tables."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vowels_of_ours").mkdir(exist_ok=True)
    (folder / "vowels_of_ours" / "share.py").write_text(VOWELS)
    (folder / "recipe.yaml").write_text(SUMS.replace("[number]", "[vowels_of_ours.share]"))
    model = tiny_model(folder / "tiny")
    head = {"model": model, "recipe": "recipe.yaml", "engine": {"type": "transformers", "max_model_len": 256}}
    benchmark = {"type": "heldout", "max_tokens": 16, "items_per_task": 50, "bits_per_byte": False}
    evaluation = {"benchmarks": [benchmark], "baselines": {"base": {}}}
    runs = {_name(objective, seed): (objective, seed) for objective in OBJECTIVES for seed in SEEDS}
    for name, (objective, seed) in runs.items():
        file = folder / f"{name}.yaml"
        grpo = {**SHARED, **OBJECTIVES[objective], "learning_rate": RATE}
        about = {**head, "name": name, "output_dir": str(folder / name), "seed": seed, "grpo": grpo, "eval": evaluation}
        file.write_text(yaml.safe_dump(about))
        whetstone(folder, "run", str(file))
        print(f"{name} done", flush=True)

    print(f"mean reward of each {GROUP} rollouts, percent, over {len(SEEDS)} seeds; then of held-out answers")
    base: list[float] = []
    for objective in OBJECTIVES:
        curves, heldout = [], []
        for seed in SEEDS:
            run = folder / _name(objective, seed)
            rewards = [one["reward"] for one in read_jsonl(run / "grpo" / "rollouts.jsonl")]
            curves.append([statistics.mean(rewards[at : at + GROUP]) for at in range(0, len(rewards), GROUP)])
            for name, found in (("grpo", heldout), ("base", base)):
                results = read_json(run / "eval" / name / "results.json")["benchmarks"]["heldout"]
                found.append(statistics.mean(results["scores"]["chain_sum"].values()))
        columns = " | ".join(interval(list(column)) for column in zip(*curves, strict=True))
        print(f"{objective}: {columns} || {interval(heldout)}")
    print(f"base, held-out: {100 * statistics.mean(base):.1f}")


if __name__ == "__main__":
    main()
