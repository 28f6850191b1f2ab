"""`whetstone jobs [RUN_FOLDER]`: what became of the Slurm jobs of a run."""

import os
from collections import defaultdict
from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.progress import console, say
from launch.slurm.ledger import Submission, Submitted, ledgers_below, read_ledger
from launch.slurm.states import State, attempt_folder, states, why


def show_jobs(folder: Path | None) -> None:
    """Print the newest submission of a run folder, or of every run folder at or below the present one.

    Raises:
        UserError: nothing was submitted there.
    """
    run_dirs = [folder] if folder and read_ledger(folder) else [] if folder else ledgers_below(Path("."))
    if not run_dirs:
        where = folder or "this folder and those below it"
        raise UserError(f"{where}: no jobs.json, so nothing was submitted from here; name the run folder")
    for run_dir in run_dirs:
        submissions = read_ledger(run_dir)
        newest = submissions[-1]
        say(f"{run_dir}: {newest.file}, submission {len(submissions)}, {newest.time}")
        _print(newest, run_dir)


def active_jobs(submissions: list[Submission], run_dir: Path) -> list[str]:
    """Return the numbers of the submitted jobs that still wait or run."""
    jobs = [job for one in submissions for job in one.jobs]
    return [job.job for job in jobs if any(state.active for state in states(job, run_dir).values())]


def _print(submission: Submission, run_dir: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("stage", "job", "state", "exit code", "reason", "log in the run folder"):
        table.add_column(title, overflow="fold")
    sentences, stopped, failed = [], [], []
    for job in submission.jobs:
        groups: dict[State, list[str]] = defaultdict(list)
        for task, state in states(job, run_dir).items():
            groups[state].append(task)
        for state, tasks in groups.items():
            log = _log(job, tasks, run_dir)
            shown = str(log and os.path.relpath(log, run_dir))
            cells = (_title(job, tasks), _number(job, tasks), state.state, state.exit_code, state.reason, shown)
            table.add_row(*map(escape, cells))
            if state.failed:
                failed.append(job.name)
                for task in tasks:
                    sentence = why(job, task, run_dir)
                    ending = f"exit code {state.exit_code}" if state.exit_code.isdecimal() else state.exit_code
                    ended = f" ({ending})" if ending else ""
                    sentences.append(f"{_title(job, [task])} failed{ended}: {sentence or state.state.lower()}")
                    log = _log(job, [task], run_dir)
                    sentences.append(f"  its log: {os.path.relpath(log)}" if log else "  it left no log")
            elif state.state == "CANCELLED" and failed:
                stopped.append(job.name)
    console().print(table)
    for sentence in sentences:
        say(sentence)
    if stopped:
        say(f"{', '.join(dict.fromkeys(stopped))}: did not run, because {', '.join(dict.fromkeys(failed))} failed")


def _title(job: Submitted, tasks: list[str]) -> str:
    meanings = [job.tasks[task] for task in tasks if task]
    if not meanings:
        return job.name
    return f"{job.name}, {meanings[0]}" if len(meanings) == 1 else f"{job.name}, {len(meanings)} tasks"


def _number(job: Submitted, tasks: list[str]) -> str:
    if tasks == [""]:
        return job.job
    return f"{job.job}_{tasks[0]}" if len(tasks) == 1 else f"{job.job}_[{','.join(tasks)}]"


def _log(job: Submitted, tasks: list[str], run_dir: Path) -> Path | str:
    """Return where the newest attempt's log is; '' where there is none yet."""
    attempts = [attempt_folder(job, task, run_dir) for task in tasks]
    slurms = [attempt.parent.with_name(attempt.parent.name + ".out") for attempt in attempts]
    there = [
        path for path in (*attempts, *slurms) if path.exists()
    ]  # (Slurm's alone: it ended before its script began)
    if len(tasks) > 1 and there:
        return run_dir / f"{job.logs}_*"
    return there[0] if there else ""
