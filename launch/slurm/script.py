"""The batch scripts of an experiment's stages."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.experiment import TRAINING, Experiment
from pipelines.sections import ContainerSection

SECONDS_TO_SAVE = 120
"""How long before its time limit a training stage is told to stop; ``launch.sbatch.signal`` says otherwise."""


@dataclass(frozen=True)
class SweepPoint:
    """One combination of a sweep's values."""

    overrides: tuple[str, ...]
    """As ``key=value``."""
    run_dir: Path
    """Where it runs."""


@dataclass(frozen=True)
class Job:
    """One Slurm job: a stage, or a stage of every point of a sweep, or evaluation in parts."""

    stage: str
    nodes: int = 1
    gpus: int = 0
    """A node."""
    array: str = ""
    """Slurm's array, such as ``1-8``; empty: no array."""
    shards: int = 0
    """Parts of the evaluation; 0: whole."""

    @property
    def name(self) -> str:
        """What it is called in the run folder."""
        return "eval-shards" if self.shards else self.stage

    @property
    def trains(self) -> bool:
        """Whether it runs on every node and goes on in another attempt when it is told to stop."""
        return self.stage in TRAINING

    @property
    def command(self) -> str:
        """What every node runs, in the script's words."""
        if self.trains:
            return f'python -m launch.slurm.node {self.stage} "$FILE" "${{SETS[@]}}"'
        if self.stage == "leaderboard":
            return 'whetstone leaderboard "$RUN"'
        shard = f' --shard "$SLURM_ARRAY_TASK_ID/{self.shards}"' if self.shards else ""
        return f'whetstone {self.stage} "$FILE"{shard} "${{SETS[@]}}"'


def jobs_of(experiment: Experiment, stages: Sequence[str], sweep: Sequence[SweepPoint], shards: int) -> list[Job]:
    """Return the jobs that run `stages`, in order, each asking for what it needs."""
    launch, engine = experiment.launch, experiment.engine
    generating = 0 if engine.type == "openai" else engine.tensor_parallel_size * engine.data_parallel_size
    array = f"0-{len(sweep) - 1}" if sweep else ""
    jobs = []
    for stage in stages:
        if stage in TRAINING:
            jobs.append(Job(stage, launch.nodes, launch.gpus_per_node, array))
            continue
        gpus = min(launch.gpus_per_node, generating) if stage in ("critique", "multicritique", "eval") else 0
        if stage == "eval" and shards:
            jobs.append(Job(stage, gpus=gpus, array=f"1-{shards}", shards=shards))
        jobs.append(Job(stage, gpus=gpus, array=array))  # (after shards: what they left, and the scores)
    return jobs


def render(experiment: Experiment, job: Job, file: Path, sweep: Sequence[SweepPoint] = ()) -> str:
    """Return the batch script of a job.

    Args:
        file: the resolved experiment file that the job reads.
        sweep: the points of the sweep, in the array's order.
    """
    templates = Environment(  # noqa: S701 - a shell script, quoted by the shell filter
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["shell"] = lambda value: shlex.quote(str(value))
    container = experiment.launch.container
    mounts = [str(Path.cwd()), str(experiment.run_dir), *(container.mounts if container else [])]
    if experiment.recipe is not None:
        mounts.append(str(experiment.mixture_recipe[1].resolve().parent))
    for model in (experiment.model, *experiment.reward_models):
        if Path(model).is_dir():
            mounts.append(str(Path(model).resolve()))
    return templates.get_template("job.sbatch.j2").render(
        experiment=experiment,
        job=job,
        options=_options(experiment, job),
        file=file,
        sweep=sweep,
        programs=Path(sys.executable).parent,
        srun_options=_pyxis(container, mounts) if container and container.runtime == "pyxis" else [],
        container=_apptainer(container, mounts, job) if container and container.runtime == "apptainer" else "",
    )


def log_folder(run_dir: Path) -> Path:
    """Return the folder of the Slurm jobs' logs: ``STAGE-JOB/latest/`` and Slurm's own ``STAGE-JOB.out``."""
    return run_dir / "logs" / "slurm"


def _options(experiment: Experiment, job: Job) -> list[str]:
    launch = experiment.launch
    output = str(log_folder(experiment.run_dir)).replace("%", "%%") + f"/{job.name}-" + ("%A_%a" if job.array else "%j")
    options: dict[str, str | int | bool] = {
        "job-name": f"{experiment.name}-{job.name}",
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "time": launch.time,
        "chdir": str(Path.cwd()),  # what is relative in the file is relative to where `whetstone run` would run
        "output": f"{output}.out",
        "open-mode": "append",
        "export": "ALL",
        "requeue": True,
        "kill-on-invalid-dep": "yes",
    }
    if job.gpus:
        options["gpus-per-node"] = job.gpus
    if launch.partition:
        options["partition"] = launch.partition
    if job.array:
        options["array"] = job.array
    if job.trains:
        options["signal"] = f"TERM@{SECONDS_TO_SAVE}"
    options |= {key: value for key, value in launch.sbatch.items() if key != "signal" or job.trains}
    wanted = {key: value for key, value in options.items() if value is not False}
    return [f"--{key}" if value is True else f"--{key}={_quoted(value)}" for key, value in wanted.items()]


def _quoted(value: str | int) -> str:
    text = str(value)
    return f'"{text}"' if " " in text else text


def _apptainer(container: ContainerSection, mounts: list[str], job: Job) -> str:
    words = ["apptainer", "exec", *(["--nv"] if job.gpus else []), *(w for one in mounts for w in ("--bind", one))]
    return shlex.join([*words, container.image])


def _pyxis(container: ContainerSection, mounts: list[str]) -> list[str]:
    pairs = ",".join(one if ":" in one else f"{one}:{one}" for one in mounts)
    options = {"image": container.image, "mounts": pairs, "workdir": mounts[0]}
    return [shlex.quote(f"--container-{name}={value}") for name, value in options.items()]
