"""The whole way on a real model, small: killed in the middle, then run again to the leaderboard."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHETSTONE = str(Path(sys.executable).parent / "whetstone")
SECTIONS = """
engine: {max_model_len: 512, max_num_seqs: 4}
critique:
  tasks: [chain_sum]
  num_questions: 10
  num_samples: 4
  num_examples: 0
  max_tokens: 8
  train_rows: 6
  heldout_rows: 4
sft:
  lora: {r: 8}
  learning_rate: 1e-3
  max_steps: 2
  per_device_train_batch_size: 4
  logging_steps: 1
grpo:
  lora: {r: 8}
  tasks: [chain_sum, critique/chain_sum]
  learning_rate: 1e-3
  max_steps: 2
  num_generations: 4
  per_device_train_batch_size: 4
  max_completion_length: 16
eval:
  benchmarks: [{type: heldout, max_tokens: 8}, {type: critique, max_tokens: 24}]
  baselines: {base: {}, "base, 2 examples": {num_examples: 2}, most frequent answer: {constant: true}}
"""
CRITIQUE = """
  critique:
    kind: critique
    source: {type: files, path: "{run}/critique/train.jsonl"}
    heldout_source: {type: files, path: "{run}/critique/heldout.jsonl"}
"""


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_whole_way_with_a_kill_in_the_middle(small_experiment, tmp_path, model_folder):
    from tests.conftest import SMALL_RECIPE

    file, run = small_experiment(SECTIONS, SMALL_RECIPE + CRITIQUE), tmp_path / "run"
    command = [WHETSTONE, "run", str(file)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples = run / "critique" / "samples.jsonl"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and (not samples.exists() or samples.read_text().count("\n") < 5):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # the stage dies with the run that started it
    kept = samples.read_text()
    kept = kept[: kept.rfind("\n") + 1]
    assert 5 <= kept.count("\n") < 64 and not (run / "critique" / "train.jsonl").exists()
    time.sleep(2)
    assert samples.read_text().startswith(kept) and samples.read_text().count("\n") == kept.count("\n")

    environment = {**os.environ, "COLUMNS": "130"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert "samples kept" in result.stdout
    assert samples.read_text().startswith(kept), "what was sampled before the kill is kept as it was"
    keys = [line["key"] for line in lines(samples)]
    assert len(keys) == len(set(keys)) == (10 + 6) * 4

    critiques = lines(run / "critique" / "train.jsonl")
    answers = [row["answer"] for row in critiques]
    assert answers.count("correct") == answers.count("incorrect") > 0
    assert len({row["messages"][-1]["content"] for row in critiques}) == len(critiques)
    assert all(row["meta"]["response_answer"] in row["messages"][-1]["content"] for row in critiques)

    grpo = [line for line in lines(run / "grpo" / "metrics.jsonl") if "reward" in line]
    assert len(grpo) == 2 and any(key.startswith("reward/") for line in grpo for key in line)
    assert all(line["sampling/sampling_logp_difference/mean"] < 0.15 for line in grpo), (
        "rollouts use the weights that train"
    )
    assert len(lines(run / "grpo" / "rollouts.jsonl")) == 8
    assert any(key.startswith("loss/") for line in lines(run / "sft" / "metrics.jsonl") for key in line)

    page = (run / "leaderboard" / "index.html").read_text()
    for name in ("base", "base, 2 examples", "most frequent answer", "SFT", "GRPO"):
        assert name in page
    assert "<svg" in page and "http://" not in page and "https://" not in page, "self-contained"
    manifest = json.loads((run / "mixture" / "manifest.json").read_text())
    assert manifest["protected_rows"] == 16
    results = [json.loads(path.read_text()) for path in run.glob("eval/*/results.json")]
    assert len(results) == 5
    for one in results:
        answered = {task for benchmark in one["benchmarks"].values() for task in benchmark["scores"]}
        assert answered == set(manifest["tasks"]), "every held-out task is answered by every row"

    before = {path: path.read_bytes() for path in run.glob("eval/*/samples.jsonl")}
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("done before") == 5
    assert before == {path: path.read_bytes() for path in run.glob("eval/*/samples.jsonl")}


@pytest.mark.slow
def test_kill_9_in_grpo_and_in_eval_loses_nothing_finished(small_experiment, tmp_path, model_folder):
    grpo = "grpo: {lora: {r: 8}, learning_rate: 1e-3, max_steps: 4, save_steps: 1, num_generations: 4,"
    grpo += " per_device_train_batch_size: 4, max_completion_length: 8}\n"
    evaluation = "eval: {benchmarks: [{type: heldout, max_tokens: 40}], baselines: {base: {}}}\n"
    file, run = (
        small_experiment(f"engine: {{max_model_len: 256, max_num_seqs: 1}}\n{grpo}{evaluation}"),
        tmp_path / "run",
    )
    metrics, samples = run / "grpo" / "metrics.jsonl", run / "eval" / "base" / "samples.jsonl"
    for watched, enough in ((metrics, 2), (samples, 3)):
        with open(tmp_path / "said", "ab") as said:
            process = subprocess.Popen([WHETSTONE, "run", str(file)], cwd=ROOT, stdout=said)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and (not watched.exists() or watched.read_text().count("\n") < enough):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1)
    kept = samples.read_text()
    kept = kept[: kept.rfind("\n") + 1]
    result = subprocess.run([WHETSTONE, "run", str(file)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    steps = [line["step"] for line in lines(metrics) if "reward" in line]
    assert steps == [1, 2, 3, 4], "each step once, across the kill"
    assert sorted({line["step"] for line in lines(run / "grpo" / "rollouts.jsonl")}) == [1, 2, 3, 4]
    assert len(lines(run / "grpo" / "rollouts.jsonl")) == 16
    assert "resuming from step" in (tmp_path / "said").read_text(), "from its checkpoint, not from the start"
    kept_step = run / "grpo" / "checkpoints" / "checkpoint-4"
    assert {path.suffix for path in kept_step.iterdir()} == {".json", ".safetensors"}, "no pickle"
    attempts = json.loads((run / "grpo" / "stage.json").read_text())["attempts"]
    assert len(attempts) == 2
    assert 3 <= kept.count("\n") < 12 and samples.read_text().startswith(kept)
    ids = [line["id"] for line in lines(samples)]
    assert len(ids) == len(set(ids)) == 12
    assert "resumed generation" in (run / "leaderboard" / "leaderboard.md").read_text()
