"""`whetstone submit FILE`: the stages as a chain of Slurm jobs; sweeps and evaluation in parts as arrays."""

import argparse
import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from data_recipes.errors import UserError
from data_recipes.files import write_atomically
from data_recipes.progress import say
from launch.jobs import active_jobs
from launch.slurm.ledger import Submission, Submitted, read_ledger, write_ledger
from launch.slurm.script import Job, SweepPoint, jobs_of, log_folder, render
from pipelines.experiment import Experiment, load_experiment
from pipelines.record import read_record

OPTIONS = ("nodes", "gpus_per_node", "partition", "time")
"""Of the command line, each a key of ``launch:`` too."""


@dataclass(frozen=True)
class _Plan:
    """What is to be submitted."""

    experiment: Experiment
    jobs: list[Job]
    sweep: list[SweepPoint]
    folder: Path
    """For the scripts and the resolved experiment file."""
    scripts: list[str]


def submit(arguments: argparse.Namespace) -> None:
    """Print (``--dry-run``) or submit an experiment's jobs, each after the one before it has succeeded.

    Raises:
        UserError: the file or an option is wrong, everything is done, jobs of this run folder are still in the queue,
            or Slurm is not installed or refuses a job.
    """
    given = {name: getattr(arguments, name) for name in OPTIONS}
    overrides = arguments.overrides + [f"launch.{name}={value!r}" for name, value in given.items() if value is not None]
    plan = _plan(arguments.file, overrides, arguments.sweep, arguments.eval_shards)
    if arguments.dry_run:
        for number, (job, script) in enumerate(zip(plan.jobs, plan.scripts, strict=True)):
            after = f", after {plan.jobs[number - 1].name}" if number else ""
            say(f"# ---- {plan.folder / job.name}.sbatch{after}\n{script}")
        return
    if shutil.which("sbatch") is None:
        raise UserError("sbatch is not on this machine's PATH; submit from a Slurm login node, or look with --dry-run")
    run_dir = plan.experiment.run_dir
    earlier = read_ledger(run_dir)
    active = active_jobs(earlier, run_dir)
    if active:
        raise UserError(
            f"{run_dir}: its jobs {', '.join(active)} are still in the queue; wait for them, or end them with"
            f" scancel {' '.join(active)}"
        )
    log_folder(run_dir).mkdir(parents=True, exist_ok=True)  # Slurm drops the output of a job whose folder is missing
    write_atomically(plan.folder / "experiment.yaml", _resolved(plan.experiment))
    submission = Submission(time.strftime("%Y-%m-%d %H:%M:%S"), os.path.relpath(arguments.file))
    _submit_all(plan, submission, earlier)
    say(f"whetstone jobs {os.path.relpath(run_dir)} shows what becomes of them")


def _plan(file: Path, overrides: list[str], sweeps: list[str], shards: int | None) -> _Plan:
    experiment = load_experiment(file, overrides)
    sweep = _sweep(file, overrides, sweeps, experiment.run_dir)
    if shards is not None and shards < 1:
        raise UserError(f"--eval-shards {shards}: give the number of parts, 1 or more")
    if shards and experiment.eval is None:
        raise UserError(f"--eval-shards {shards}: {file} has no eval section; add it to the file")
    if shards and sweep:
        raise UserError("--eval-shards and --sweep: each makes an array, and a job has one; leave one of them out")
    experiment.output_dir = str(experiment.run_dir)
    stages = [stage for stage in experiment.stages if sweep or not _is_done(experiment, stage)]
    if stages in ([], ["leaderboard"]) and not sweep:
        raise UserError(f"{experiment.run_dir}: every stage is done; give another output_dir to run it again")
    jobs = jobs_of(experiment, stages, sweep, shards or 0)
    folder = experiment.run_dir / "slurm" / str(len(read_ledger(experiment.run_dir)) + 1)
    scripts = [render(experiment, job, folder / "experiment.yaml", sweep) for job in jobs]
    return _Plan(experiment, jobs, sweep, folder, scripts)


def _is_done(experiment: Experiment, stage: str) -> bool:
    if stage == "leaderboard":
        return False
    record = read_record(experiment, stage)  # refuses other settings before anything is submitted
    return bool(record and record["finished"])


def _sweep(file: Path, overrides: list[str], sweeps: list[str], run_dir: Path) -> list[SweepPoint]:
    """Return every combination of the values of ``key=value,value`` texts, each checked as an experiment of its own."""
    axes = []
    for sweep in sweeps:
        key, separator, text = sweep.partition("=")
        values = text.split(",")
        if not separator or not key or not all(value.strip() for value in values):
            raise UserError(f"--sweep {sweep!r}: write it as key=value,value, such as sft.learning_rate=1e-4,3e-4")
        if key == "output_dir" or key.split(".")[0] == "launch":
            raise UserError(f"--sweep {key}: the jobs of an array share this; submit a file for each value instead")
        axes.append([f"{key}={value.strip()}" for value in values])
    if not axes:
        return []
    points = []
    for combination in itertools.product(*axes):
        name = re.sub(r"[^\w.,=+-]", "_", ",".join(combination))
        point = SweepPoint(combination, run_dir / name)
        if any(point.run_dir == other.run_dir for other in points):
            raise UserError(f"--sweep: two values would share the folder {point.run_dir}; give each value once")
        experiment = load_experiment(file, [*overrides, *combination, f"output_dir={point.run_dir}"])
        for stage in experiment.stages:
            _is_done(experiment, stage)
        points.append(point)
    return points


def _resolved(experiment: Experiment) -> str:
    """Return the experiment as a file of its own: later changes to the user's file do not reach waiting jobs."""
    values = experiment.model_dump()
    if experiment.recipe is not None:
        values["recipe"] = str(experiment.mixture_recipe[1].resolve())
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _submit_all(plan: _Plan, submission: Submission, earlier: Sequence[Submission]) -> None:
    """Submit the jobs, each after the one before, and write down each as soon as Slurm has it.

    Raises:
        UserError: Slurm refuses one; those before it are cancelled.
    """
    experiment = plan.experiment
    before: Job | None = None
    for job, script in zip(plan.jobs, plan.scripts, strict=True):
        path = plan.folder / f"{job.name}.sbatch"
        write_atomically(path, script)
        command = ["sbatch", "--parsable"]
        if before:
            # of two arrays over the same points, each task waits for its own
            kind = "aftercorr" if plan.sweep else "afterok"
            command.append(f"--dependency={kind}:{submission.jobs[-1].job}")
        result = subprocess.run([*command, str(path)], capture_output=True, text=True)
        if result.returncode != 0:
            subprocess.run(["scancel", *(one.job for one in submission.jobs)], capture_output=True, check=False)
            said = " ".join(result.stderr.split())
            raise UserError(f"{path}: Slurm refuses the job: {said}")
        number = result.stdout.strip().partition(";")[0]  # (a cluster's name may follow)
        submission.jobs.append(_submitted(plan, job, number, path))
        write_ledger(experiment.run_dir, [*earlier, submission])
        tasks = f", array {job.array}" if job.array else ""
        nodes = f", {job.nodes} nodes" if job.nodes > 1 else ""
        gpus = f", {job.gpus} GPUs a node" if job.gpus else ""
        after = f", after {before.name}" if before else ""
        say(f"{job.name}: job {number}{tasks}{nodes}{gpus}{after}")
        before = job


def _submitted(plan: _Plan, job: Job, number: str, script: Path) -> Submitted:
    run_dir = plan.experiment.run_dir
    tasks = {str(k): f"{k}/{job.shards}" for k in range(1, job.shards + 1)}
    if plan.sweep:
        tasks = {str(k): ", ".join(point.overrides) for k, point in enumerate(plan.sweep)}
    return Submitted(
        job=number,
        name=job.name,
        stage=job.stage,
        slurm_name=f"{plan.experiment.name}-{job.name}",
        script=str(script.relative_to(run_dir)),
        logs=str((log_folder(run_dir) / f"{job.name}-{number}").relative_to(run_dir)),
        tasks=tasks,
        run_dirs={str(k): str(point.run_dir.relative_to(run_dir)) for k, point in enumerate(plan.sweep)},
    )
