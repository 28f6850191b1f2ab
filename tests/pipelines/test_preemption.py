"""SIGTERM while training: a checkpoint of the step, an exit that the caller starts again from, and the same end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipelines.alone import PREEMPTED, guarded
from pipelines.checkpoints import COMPLETE, newest_checkpoint
from tests.pipelines.sft_runs import ROOT, launch, logged, metrics, same_weights, train_here, wait_until

STEPS = 30
SECTIONS = f"""
sft:
  lora: {{r: 8, lora_dropout: 0.1}}
  dtype: float32
  bf16: false
  learning_rate: 2e-2
  logging_steps: 1
  batch_size: 4
  max_steps: {STEPS}
  save_steps: 1000
  max_length: 128
  eval_strategy: steps
  eval_steps: 7
  eval_on_start: true
"""


def lines(run: Path) -> int:
    log = run / "sft" / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def saved_at(run: Path) -> int:
    """Return the step of the one checkpoint there is, which has to be whole."""
    (found,) = (run / "sft" / "checkpoints").iterdir()
    complete = json.loads((found / COMPLETE).read_text())
    assert newest_checkpoint(run / "sft", complete["run"]) == found
    return complete["step"]


def test_sigterm_saves_at_the_step_and_the_rerun_ends_bit_equal(tiny_mixed, capsys):
    file, run_folder = tiny_mixed(SECTIONS)
    undisturbed, told = run_folder("undisturbed"), run_folder("told")
    train_here(file, f"output_dir={undisturbed}")

    def tell() -> None:
        deadline = time.monotonic() + 120
        while lines(told) < 3 and time.monotonic() < deadline:
            time.sleep(0.002)
        for _ in range(3):  # Slurm and a launcher may each send one
            os.kill(os.getpid(), signal.SIGTERM)

    # no signal of this test may meet another handler than the trainer's
    default = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    teller = threading.Thread(target=tell)
    try:
        teller.start()
        with pytest.raises(SystemExit) as caught:
            guarded(lambda: train_here(file, f"output_dir={told}"))
        teller.join()
    finally:
        signal.signal(signal.SIGTERM, default)
    step = saved_at(told)
    assert caught.value.code == PREEMPTED == 75 and 1 <= step < STEPS
    assert f"whetstone: preempted: saved at step {step}; run the same command again" in capsys.readouterr().err
    assert [line["step"] for line in metrics(told)] == list(range(1, step + 1)), "it left at that very step"
    assert not (told / "sft" / "model").exists()

    train_here(file, f"output_dir={told}")
    assert f"resuming from step {step}" in capsys.readouterr().out
    assert logged(told) == logged(undisturbed) and same_weights(told, undisturbed)


@pytest.mark.slow
def test_sigterm_to_the_command_itself_is_exit_code_75(tiny_mixed, tmp_path):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    options = ["--set", f"output_dir={run}", "--set", "sft.max_steps=1000"]
    process = launch(file, *options, background=True, said=tmp_path / "stderr")
    wait_until(lambda: lines(run) >= 3, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == PREEMPTED
    said = (tmp_path / "stderr").read_text()
    assert f"whetstone: preempted: saved at step {saved_at(run)};" in said and "Traceback" not in said
    assert not json.loads((run / "sft" / "stage.json").read_text())["finished"]


@pytest.mark.slow
@pytest.mark.parametrize("told", ["one worker", "the launcher", "the node's launcher", "whetstone"])
def test_sigterm_to_two_processes_makes_both_save_and_leave(tiny_mixed, tmp_path, told):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    words = ["--set", f"output_dir={run}", "--set", "sft.max_steps=60"]
    both = [*words, "--set", "launch.num_processes=2"]
    said = tmp_path / "stderr"
    if told == "whetstone":
        process = in_background([str(Path(sys.executable).parent / "whetstone"), "sft", str(file), *both], said)
    elif told == "the node's launcher":
        variables = {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "WHETSTONE_ATTEMPT": str(tmp_path)}
        process = in_background([sys.executable, "-m", "launch.slurm.node", "sft", str(file), *both], said, **variables)
    else:
        process = launch(file, *words, processes=2, background=True, said=said)
    wait_until(lambda: lines(run) >= 3, process)
    below = psutil.Process(process.pid).children(recursive=True)
    workers = [one for one in below if "RANK" in one.environ()]
    assert len(workers) == 2
    if told == "one worker":
        workers[1].send_signal(signal.SIGTERM)
    elif told == "the node's launcher":
        for one in [*below, psutil.Process(process.pid)]:  # as Slurm does
            one.send_signal(signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    code = process.wait(90)
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive, "all have left"
    step = saved_at(run)
    assert 1 <= step < 60
    words_said = said.read_text()
    assert f"whetstone: preempted: saved at step {step};" in words_said
    # `whetstone` starts again on 75, a node on the file it leaves; accelerate's launcher has a code of its own
    assert code == PREEMPTED if told == "whetstone" else code == 0 if "node" in told else code not in (0, 2)
    assert (tmp_path / "preempted").exists() == ("node" in told)

    shutil.copytree(run, tmp_path / "again")
    options = ["--set", f"output_dir={tmp_path / 'again'}", "--set", f"sft.max_steps={60}"]
    assert f"resuming from step {step}" in launch(file, *options, processes=2).stdout
    assert [line["step"] for line in metrics(tmp_path / "again")] == list(range(1, 61))


def in_background(command: list[str], said: Path, **variables: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    with open(said, "wb") as stderr:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
