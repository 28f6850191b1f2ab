"""The record by which a finished stage is recognised: ``<stage>/stage.json``, written last."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json
from pipelines.experiment import Experiment

RECORD = "stage.json"


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
    if record["fingerprint"] != experiment.fingerprint_of(stage):
        raise UserError(
            f"{experiment.run_dir / stage}: made with other settings than the file has now; give another output_dir"
            f" (--set output_dir=...) or move that folder away"
        )
    return record


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
