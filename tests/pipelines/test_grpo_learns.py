"""GRPO with the real model on two tasks whose rewards are scaled 1 and 100: both are learnt."""

import json
import subprocess
import sys

import pytest

from data_recipes.files import read_json
from eval.statistics import paired_difference
from tests.pipelines.sft_runs import ROOT

TWO_NUMBERS = """
def records(size, seed):
    import random
    chance = random.Random(seed)
    for key in range(size):
        a, b = chance.sample(range(10, 100), 2)
        yield {"key": f"{seed}-{key}", "a": a, "b": b, "larger": max(a, b)}
"""
TASK = """\
  {name}:
    kind: domain
    source: {{type: python, function: "two_numbers:records", arguments: {{size: 600, seed: {seed}}}}}
    prompt: "{prompt} Answer with the number only."
    answer: "{answer}"
    target: "{answer}"
    verifiers: [number]
    train_rows: 300
    heldout_rows: 100
"""
RECIPE = "cleaning: {decontaminate: exact, protect: heldout}\ntasks:\n" + "".join(
    TASK.format(name=name, seed=seed, prompt=prompt, answer=answer)
    for name, seed, prompt, answer in (
        ("larger", 5, "Which number is larger, {{ a }} or {{ b }}?", "{{ larger }}"),
        ("second", 6, "Which number comes second in the list {{ a }}, {{ b }}?", "{{ b }}"),
    )
)
GRPO = {
    **{"lora": {"r": 16, "lora_alpha": 32}, "learning_rate": 1e-3, "max_steps": 24, "num_generations": 8},
    **{"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "max_completion_length": 24},
    **{"reward_scale": {"second": 100.0}, "save_steps": 12},
}
EVAL = {"benchmarks": [{"type": "heldout", "max_tokens": 24, "bits_per_byte": False}], "baselines": {"base": {}}}


@pytest.mark.slow
def test_tasks_whose_rewards_differ_a_hundredfold_are_both_learnt(small_experiment, model_folder, tmp_path, capsys):
    (tmp_path / "two_numbers.py").write_text(TWO_NUMBERS)
    sections = f"engine: {{max_model_len: 128}}\ngrpo: {json.dumps(GRPO)}\neval: {json.dumps(EVAL)}\n"
    file = small_experiment(sections, recipe=RECIPE)
    subprocess.run([sys.executable, "-m", "launch.cli", "run", str(file)], cwd=ROOT, check=True)
    run = tmp_path / "run"
    before, after = (read_json(run / "eval" / row / "results.json") for row in ("base", "grpo"))
    for task in ("larger", "second"):
        old, new = (results["benchmarks"]["heldout"]["scores"][task] for results in (before, after))
        difference, half_width = paired_difference({task: new}, {task: old})
        with capsys.disabled():
            print(f"\n{task}: base {sum(old.values()):.0f}, GRPO {sum(new.values()):.0f} of {len(old)};", end=" ")
            print(f"{100 * difference:+.1f} ± {100 * half_width:.1f}")
        assert difference > half_width
