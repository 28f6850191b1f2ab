"""GRPO with the real model on two tasks whose rewards are scaled 1 and 100: both are learnt."""

import json
import subprocess
import sys

import pytest

from data_recipes.files import read_json
from eval.statistics import paired_difference
from tests.pipelines.grpo_runs import SUMS
from tests.pipelines.sft_runs import ROOT

LARGER = """
def records(size, seed):
    import random
    chance = random.Random(seed)
    for key in range(size):
        a, b = chance.sample(range(10, 100), 2)
        yield {"key": key, "a": a, "b": b, "answer": max(a, b)}
"""
RECIPE = (
    SUMS
    + """\
  larger:
    kind: domain
    source: {type: python, function: "larger_of_two:records", arguments: {size: 600, seed: 5}}
    prompt: "Which number is larger, {{ a }} or {{ b }}? Answer with the number only."
    answer: "{{ answer }}"
    verifiers: [number]
    train_rows: 200
    heldout_rows: 100
"""
)
GRPO = {
    **{"lora": {"r": 16, "lora_alpha": 32}, "learning_rate": 2e-4, "max_steps": 30, "num_generations": 8},
    **{"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "max_completion_length": 16},
    **{"reward_scale": {"larger": 100.0}, "save_steps": 20},
}
EVAL = {"benchmarks": [{"type": "heldout", "max_tokens": 16, "bits_per_byte": False}], "baselines": {"base": {}}}


@pytest.mark.slow
def test_tasks_whose_rewards_differ_a_hundredfold_are_both_learnt(small_experiment, model_folder, tmp_path, capsys):
    (tmp_path / "larger_of_two.py").write_text(LARGER)
    sections = f"engine: {{max_model_len: 128}}\ngrpo: {json.dumps(GRPO)}\neval: {json.dumps(EVAL)}\n"
    file = small_experiment(sections, recipe=RECIPE)
    subprocess.run([sys.executable, "-m", "launch.cli", "run", str(file)], cwd=ROOT, check=True)
    run = tmp_path / "run"
    before, after = (read_json(run / "eval" / row / "results.json") for row in ("base", "grpo"))
    for task in ("chain_sum", "larger"):
        old, new = (results["benchmarks"]["heldout"]["scores"][task] for results in (before, after))
        difference, half_width = paired_difference({task: new}, {task: old})
        with capsys.disabled():
            print(f"\n{task}: base {sum(old.values()):.0f}, GRPO {sum(new.values()):.0f} of {len(old)};", end=" ")
            print(f"{100 * difference:+.1f} ± {100 * half_width:.1f}")
        assert difference > half_width
