"""The same build on many machines, through datatrove: a job array makes the parts, one job puts them together.

datatrove and not Ray Data: its executors run a plain function ``(data, rank, world_size)`` under Slurm's own array jobs
with finished ranks remembered, which is all a build needs; Ray would bring a cluster of its own to be kept alive.
The steps are those of a local build (`data_recipes.chunks` and `data_recipes.mixture`), so the bytes are the same.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_recipes.chunks import Plan, chunks_of, make_part
from data_recipes.errors import UserError
from data_recipes.mixture import finish
from data_recipes.row import Row


@dataclass
class MakeParts:
    """A pipeline step: of all chunks, rank r of n makes those whose number leaves r when divided by n."""

    plan: Plan

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Write the rank's parts; pass `data` on."""
        number_in_all = 0
        for task in self.plan.recipe.tasks:
            for number, records in chunks_of(self.plan, task):
                if number_in_all % world_size == rank:
                    make_part(self.plan, task, number, records)
                number_in_all += 1
        return data


@dataclass
class PutTogether:
    """A pipeline step for one rank: the parts become the mixture."""

    plan: Plan
    heldout: list[Row]
    folder: Path
    seed: int

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Write the mixture folder; pass `data` on."""
        finish(self.plan, self.heldout, self.folder, self.seed, workers=1)
        return data


def _fresh_logs(folder: Path) -> Path:
    """Return an empty folder for datatrove's logs: those of an earlier build would pass for this one's finished ranks.

    A build that was cut off loses nothing by it: its parts are kept by `data_recipes.chunks`.
    """
    logs = folder.with_name(f".{folder.name}.logs")
    shutil.rmtree(logs, ignore_errors=True)
    return logs


def build_on_slurm(
    plan: Plan, heldout: list[Row], folder: Path, seed: int, *, tasks: int, partition: str, time: str
) -> None:
    """Submit an array of `tasks` jobs that make the parts, and a job after it that puts them together.

    The plan is pickled beside the mixture, so every node has to see that folder and this environment.

    Raises:
        UserError: Slurm does not take the jobs.
    """
    from datatrove.executor import SlurmPipelineExecutor

    logs = _fresh_logs(folder)
    common = {"time": time, "partition": partition, "venv_path": f"{sys.prefix}/bin/activate", "mail_type": "NONE"}
    parts = SlurmPipelineExecutor(
        [MakeParts(plan)], tasks=tasks, job_name="whetstone-parts", logging_dir=str(logs / "parts"), **common
    )
    mixture = SlurmPipelineExecutor(
        [PutTogether(plan, heldout, folder, seed)],
        tasks=1,
        depends=parts,
        job_name="whetstone-mixture",
        logging_dir=str(logs / "mixture"),
        **common,
    )
    try:
        mixture.run()
    except subprocess.CalledProcessError as error:  # sbatch has said why
        if parts.job_id is None:
            shutil.rmtree(logs)
        raise UserError("--slurm: sbatch did not take the job; mend what it says above") from error


def build_in_processes(plan: Plan, heldout: list[Row], folder: Path, seed: int, *, tasks: int, workers: int) -> None:
    """Do on this machine what `build_on_slurm` does on many: datatrove's local executor, same steps, same bytes."""
    from datatrove.executor import LocalPipelineExecutor

    logs = _fresh_logs(folder)
    parts = LocalPipelineExecutor([MakeParts(plan)], tasks=tasks, workers=workers, logging_dir=str(logs / "parts"))
    LocalPipelineExecutor(
        [PutTogether(plan, heldout, folder, seed)], tasks=1, depends=parts, logging_dir=str(logs / "mixture")
    ).run()
