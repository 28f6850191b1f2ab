"""``jobs.json`` in a run folder: the Slurm jobs that were submitted for it."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_recipes.files import read_json, write_json

LEDGER = "jobs.json"


@dataclass
class Submitted:
    """A job that Slurm took."""

    job: str
    """Slurm's number."""
    name: str
    """Of the stage, or ``eval-shards``."""
    stage: str
    slurm_name: str
    """What Slurm calls it: a number alone is used again once the counter starts anew."""
    script: str
    """Path, relative to the run folder, as the next one is."""
    logs: str
    """Folder of its logs; of an array, what they begin with."""
    tasks: dict[str, str] = field(default_factory=dict)
    """Of an array: task -> what it stands for (a sweep's values, a shard)."""
    run_dirs: dict[str, str] = field(default_factory=dict)
    """Of a sweep: task -> run folder."""


@dataclass
class Submission:
    """One `whetstone submit`."""

    time: str
    file: str
    """The experiment file that was given."""
    jobs: list[Submitted] = field(default_factory=list)


def read_ledger(run_dir: Path) -> list[Submission]:
    """Return the submissions for a run folder, oldest first.

    Raises:
        UserError: its jobs.json is damaged.
    """
    path = run_dir / LEDGER
    if not path.exists():
        return []
    return [Submission(**{**one, "jobs": [Submitted(**job) for job in one["jobs"]]}) for one in read_json(path)]


def write_ledger(run_dir: Path, submissions: list[Submission]) -> None:
    """Write them, atomically."""
    write_json(run_dir / LEDGER, [asdict(one) for one in submissions])


def ledgers_below(folder: Path) -> list[Path]:
    """Return the run folders at or below `folder`, at most two levels deep, that have submitted jobs."""
    found = [path.parent for pattern in (LEDGER, f"*/{LEDGER}", f"*/*/{LEDGER}") for path in folder.glob(pattern)]
    return sorted(found, key=lambda run_dir: os.path.getmtime(run_dir / LEDGER))
