"""kill -9 at random moments, and the same command again: nothing is lost and the end is the same."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.pipelines.sft_runs import launch, logged, metrics, same_weights, wait_until

KILLS, SEED, STEPS = 20, 7, 30
SECTIONS = f"""
sft:
  lora: {{r: 8, lora_dropout: 0.1}}
  dtype: float32
  bf16: false
  learning_rate: 2e-2
  balance: dwa
  logging_steps: 1
  batch_size: 4
  max_steps: {STEPS}
  save_steps: 2
  max_length: 128
  eval_strategy: steps
  eval_steps: 5
"""


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tiny_mixed, tmp_path):
    """A quarter of the kills fall anywhere in the life of the process, the others while it trains and saves."""
    file, run_folder = tiny_mixed(SECTIONS)
    undisturbed = run_folder("undisturbed")
    start = time.monotonic()
    process = launch(file, "--set", f"output_dir={undisturbed}", threads=1, background=True)
    wait_until((undisturbed / "sft" / "metrics.jsonl").exists, process)
    begun = time.monotonic()
    assert process.wait() == 0
    loading, training = begun - start, time.monotonic() - begun
    print(f"undisturbed: {loading:.1f} s to the first step, {training:.1f} s from there")
    assert [line["step"] for line in metrics(undisturbed)] == list(range(1, STEPS + 1))

    chance, killed, resumed = random.Random(SEED), 0, set()
    for number in range(KILLS):
        run = tmp_path / f"killed-{number}"
        shutil.copytree(undisturbed / "mixture", run / "mixture")
        options = ["--set", f"output_dir={run}"]
        process = launch(file, *options, threads=1, background=True)
        if number % 4:
            delay = chance.uniform(0, training)
            wait_until((run / "sft" / "metrics.jsonl").exists, process)
        else:
            delay = chance.uniform(0, loading + training)
        time.sleep(delay)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        found = sorted(path.name for path in run.glob("sft/*"))
        said = launch(file, *options, threads=1).stdout
        step = next((int(line.split()[-1]) for line in said.splitlines() if "resuming from step" in line), 0)
        resumed.add(step)
        print(f"kill {number}: {delay:.2f} s, left {' '.join(found)}; went on from step {step}")
        assert logged(run) == logged(undisturbed), f"kill {number}"
        assert same_weights(run, undisturbed), f"kill {number}"
        assert not list(run.glob("sft/**/.*")), "no half is left behind"
        shutil.rmtree(run)
    assert killed >= 0.8 * KILLS, "most of them met a process that was still at it"
    assert len(resumed) >= KILLS // 5, "at many moments"


@pytest.mark.slow
def test_two_processes_under_zero_2_go_on_after_a_kill(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    undisturbed, killed = run_folder("undisturbed"), run_folder("killed")
    launch(file, "--set", f"output_dir={undisturbed}", processes=2, strategy="zero2")
    options = ["--set", f"output_dir={killed}"]
    process = launch(file, *options, processes=2, strategy="zero2", background=True)
    wait_until(lambda: list(killed.glob("sft/checkpoints/checkpoint-1?/complete.json")), process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    time.sleep(2)  # the workers die with their launcher
    assert "resuming from step" in launch(file, *options, processes=2, strategy="zero2").stdout
    ours, theirs = metrics(killed), metrics(undisturbed)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, STEPS + 1))
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True)) < 1e-3
    assert abs(theirs[0]["loss"] - theirs[-1]["loss"]) > 0.1
    assert furthest(killed, undisturbed) < 1e-4


def furthest(one: Path, two: Path) -> float:
    """Return the largest difference between two runs' final weights."""
    ours, theirs = (load_file(run / "sft" / "model" / "model.safetensors") for run in (one, two))
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)
