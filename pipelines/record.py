"""The record by which a finished stage is recognised: ``<stage>/stage.json``, written last."""

import ctypes
import fcntl
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json
from pipelines.experiment import Experiment

RECORD = "stage.json"
LOCK_HELD = "WHETSTONE_LOCK_HELD"
"""Set in the environment of stages whose run holds the folder's lock for them."""
SECONDS_TO_WAIT_FOR_LOCK = 10


def read_record(experiment: Experiment, stage: str) -> dict[str, Any] | None:
    """Return the stage's record, or None where it has not started.

    Raises:
        UserError: the stage was begun with other settings, so neither skipping nor going on would be right.
    """
    path = experiment.run_dir / stage / RECORD
    if not path.exists():
        return None
    record = read_json(path)
    if not record["finished"] and not any(one.name != RECORD for one in path.parent.iterdir()):
        return None  # it failed before it made anything: whatever settings it had do not bind
    if stage == "mix" and not (experiment.run_dir / "mixture" / "manifest.json").exists():
        return None  # deleted because it was damaged: it is built again
    if record["fingerprint"] != experiment.fingerprint_of(stage):
        raise UserError(
            f"{experiment.run_dir / stage}: made with other settings than the file has now; give another output_dir"
            f" (--set output_dir=...) or move that folder away"
        )
    return record


@contextmanager
def locked(run_dir: Path) -> Iterator[int]:
    """Hold the run folder for this run and its stages; a killed run lets go as soon as its stage is dead.

    Yields:
        The lock's file descriptor, for stages to inherit.

    Raises:
        UserError: another run holds the folder.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / ".lock", "w") as lock:
        deadline = time.monotonic() + SECONDS_TO_WAIT_FOR_LOCK
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{run_dir}: another run is using this folder; wait for it or stop it") from None
                time.sleep(0.5)
        yield lock.fileno()


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it dies, however it dies."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@contextmanager
def stage_record(experiment: Experiment, stage: str) -> Iterator[bool]:
    """Yield whether the stage is finished already; record its start and, if the block ends well, its finish."""
    record = read_record(experiment, stage)
    if record and record["finished"]:
        yield True
        return
    path: Path = experiment.run_dir / stage / RECORD
    first = int(os.environ.get("RANK", "0")) == 0
    attempts = [*(record["attempts"] if record else []), {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}]
    record = {"stage": stage, "fingerprint": experiment.fingerprint_of(stage), "finished": False, "attempts": attempts}
    if first:
        write_json(path, record)
    start = time.monotonic()
    yield False
    attempts[-1]["seconds"] = round(time.monotonic() - start, 1)
    attempts[-1]["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    if first:
        write_json(path, {**record, "finished": True})
