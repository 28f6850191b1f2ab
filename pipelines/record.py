"""The record by which a finished stage is recognised: ``<stage>/stage.json``, written last."""

import fcntl
import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json
from eval.harness import Shard
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
    if record.get("section") != experiment.section_fingerprint(stage):
        record["finished"] = False  # its section asks for something else now
    return record


@contextmanager
def locked(run_dir: Path, shard: Shard | None = None) -> Iterator[list[int]]:
    """Hold the run folder for this run and its stages; a killed run lets go as soon as its stage is dead.

    Args:
        shard: hold this shard alone; other shards may run, the whole may not.

    Yields:
        The locks' file descriptors, for stages to inherit.

    Raises:
        UserError: another run holds the folder.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        wanted = [(".lock", fcntl.LOCK_SH if shard else fcntl.LOCK_EX)]
        if shard:
            wanted.append((f".lock-{shard.number}-of-{shard.total}", fcntl.LOCK_EX))
        locks = [(stack.enter_context(open(run_dir / name, "w")), kind) for name, kind in wanted]
        deadline = time.monotonic() + SECONDS_TO_WAIT_FOR_LOCK
        for lock, kind in locks:
            while True:
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        sentence = f"{run_dir}: another run is using this folder; wait for it or stop it"
                        raise UserError(sentence) from None
                    time.sleep(0.5)
        yield [lock.fileno() for lock, _ in locks]


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
    section = experiment.section_fingerprint(stage)
    if section:
        record["section"] = section
    if first:
        write_json(path, record)
    start = time.monotonic()
    yield False
    attempts[-1]["seconds"] = round(time.monotonic() - start, 1)
    attempts[-1]["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    if first:
        write_json(path, {**record, "finished": True})
