"""GRPO on two processes learns what one process learns from the same completions."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from tests.pipelines.grpo_runs import metrics, mixed_with, rollouts  # noqa: F401
from tests.pipelines.sft_runs import launch

KEYS = {"learning_rate": 1e-3, "max_steps": 10, "beta": 0.05, "save_strategy": "no", "set_aside_for": 3}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "name"), [("cpu", "ddp"), ("zero2", "zero2")])
def test_two_processes_learn_as_one(mixed_with, tiny_model, tmp_path, strategy, name):  # noqa: F811
    file, one = mixed_with("vowels", **KEYS)
    two = tmp_path / "two"
    launch(file, stage="grpo")
    shutil.copytree(one / "mixture", two / "mixture")
    given = f"grpo.rollouts={one / 'grpo' / 'rollouts.jsonl'}"
    options = ["--set", f"output_dir={two}", "--set", given, "--set", "grpo.per_device_train_batch_size=2"]
    launch(file, *options, processes=2, strategy=strategy, stage="grpo")

    assert json.loads((two / "grpo" / "strategy.json").read_text())["runs"] == name
    ours, theirs = metrics(two), metrics(one)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, 11))
    by_task = {key for line in theirs for key in line if key.partition("/")[0] in ("reward", "kl", "advantage")}
    for key in ("loss", "grad_norm", *sorted(by_task)):
        gaps = [abs(a[key] - b[key]) for a, b in zip(ours, theirs, strict=True) if key in b or key in a]
        print(f"{name}: {key} differs by at most {max(gaps):.1e}")
        assert max(gaps) < 1e-3, key
    by_place = [
        {(r["step"], r["id"], r["sample"]): (r["tokens"], r["reward"]) for r in rollouts(run)} for run in (one, two)
    ]
    assert by_place[0] == by_place[1], "the same completions, worth the same"
    first, second = (load_file(run / "grpo" / "model" / "model.safetensors") for run in (one, two))
    start = load_file(f"{tiny_model}/model.safetensors")
    assert max((first[key] - second[key]).abs().max().item() for key in first) < 1e-4
    assert max((first[key] - start[key]).abs().max().item() for key in first) > 1e-3, "they learnt"
