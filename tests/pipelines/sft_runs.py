"""The training stages as their documentation starts them, and what SFT leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


def launch(
    file: Path,
    *options: str,
    processes: int = 1,
    background: bool = False,
    strategy: str = "cpu",
    said: Path | None = None,
    threads: int = 2,
    stage: str = "sft",
):
    """Start a training stage the way its documentation says, on one process or under accelerate.

    Args:
        said: file for what one in the background writes to stderr.
        threads: of a single process; several have one each.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1" if processes > 1 else str(threads)}
    command = [sys.executable, "-m", f"pipelines.{stage}", str(file), *options]
    if processes > 1:
        config = ["--config_file", f"launch/accelerate/{strategy}.yaml", "--num_processes", str(processes)]
        command = [sys.executable, "-m", "accelerate.commands.launch", *config, *command[1:]]
    if background:
        with open(said or os.devnull, "wb") as stderr:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "sft" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def train_here(file: Path, *overrides: str) -> None:
    """Run the SFT stage in this process."""
    from pipelines.sft import train

    run_here(train, file, *overrides)


def run_here(train: Callable, file: Path, *overrides: str) -> None:
    """Run a stage in this process, without the front door and on one thread, as tiny models like it."""
    import torch

    from pipelines.experiment import load_experiment

    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(load_experiment(file, list(overrides)))
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, before)


def logged(run: Path) -> list[dict]:
    """Return every line of a run's metrics but the summary at its end, without the times."""
    lines = [json.loads(line) for line in (run / "sft" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines if "train_runtime" not in line]


def same_weights(one: Path, two: Path, names: tuple[str, ...] = ("adapter/adapter_model", "model/model")) -> bool:
    """Return whether two runs ended in the same tensors, bit by bit."""
    for name in names:
        ours, theirs = (load_file(run / "sft" / f"{name}.safetensors") for run in (one, two))
        if ours.keys() != theirs.keys() or not all(ours[key].equal(theirs[key]) for key in ours):
            return False
    return True


def wait_until(happened: Callable[[], object], process: subprocess.Popen, seconds: float = 240) -> None:
    """Wait for something a process in the background does; one that ends before it fails the test."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, "it ended first"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)
