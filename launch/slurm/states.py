"""What became of a job: from Slurm's controller, else from its accounting, else from what the job left on disk."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.files import read_json
from launch.slurm.ledger import Submitted
from pipelines.record import RECORD

ACTIVE = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "RESIZING", "STOPPED"}
FAILED = {"FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "PREEMPTED"}
NOT_A_REASON = {"None", "(null)", "NonZeroExitCode"}
ERROR = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")
NOISE = re.compile(r"(srun:|slurmstepd:|attempt \d|rendezvous at|[=-]{3})")


@dataclass(frozen=True)
class State:
    """A job's or an array task's."""

    state: str
    """Slurm's word, such as COMPLETED."""
    exit_code: str = ""
    """A number, or ``signal N``; empty: not known, or not ended."""
    reason: str = ""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ACTIVE

    @property
    def failed(self) -> bool:
        """Whether it ended badly by itself, not because another did."""
        return self.state in FAILED


def states(job: Submitted, run_dir: Path) -> dict[str, State]:
    """Return the state of a job, or of each of an array's tasks, by task (of a single job: ``""``)."""
    known = _from_accounting(job) | _from_controller(job)  # the controller is ahead while it remembers a job
    return {task: known.get(task) or _from_disk(job, task, run_dir) for task in job.tasks or [""]}


def attempt_folder(job: Submitted, task: str, run_dir: Path) -> Path:
    """Return the folder of the newest attempt's logs."""
    return run_dir / f"{job.logs}{'_' + task if task else ''}" / "latest"


def why(job: Submitted, task: str, run_dir: Path) -> str:
    """Return the sentence in which a job's log says why it failed, else the log's last line; '' where it is silent."""
    attempt = attempt_folder(job, task, run_dir)
    slurms = run_dir / f"{job.logs}{'_' + task if task else ''}.out"
    texts = [path.read_text(errors="replace") for path in [*sorted(attempt.glob("*.log")), slurms] if path.exists()]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    said = [line.removeprefix("whetstone: ") for line in lines if line.startswith("whetstone: ")]
    raised = [line for line in lines if ERROR.match(line) and "ChildFailedError" not in line]
    return (said or raised or [line for line in lines if not NOISE.match(line)] or lines or [""])[-1]


def _asked(*command: str) -> str:
    """Return what one of Slurm's programs prints; '' where it is missing, refuses or does not answer."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ""
    return result.stdout if result.returncode == 0 else ""


def _from_accounting(job: Submitted) -> dict[str, State]:
    text = _asked("sacct", "-X", "-n", "-P", "-j", job.job, "-o", "JobID,JobName,State,ExitCode,Reason")
    found = {}
    for line in text.splitlines():
        number, name, state, code, reason = (line.split("|", 4) + [""] * 5)[:5]
        if name != job.slurm_name:
            continue
        for task in _tasks(number.partition("_")[2]):
            found[task] = _state(state.split(" ")[0], code, reason)
    return found


def _from_controller(job: Submitted) -> dict[str, State]:
    found = {}
    for line in _asked("scontrol", "--oneliner", "show", "job", job.job).splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if fields.get("JobName") != job.slurm_name:
            continue
        for task in _tasks(fields.get("ArrayTaskId", "")):
            found[task] = _state(fields["JobState"], fields.get("ExitCode", ""), fields.get("Reason", ""))
    return found


def _tasks(text: str) -> Iterator[str]:
    """Yield the tasks of ``3``, ``[1-4,7%2]`` or the empty text of a single job."""
    for part in text.strip("[]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and last.isdecimal():
            yield from (str(number) for number in range(int(first), int(last) + 1))
        else:
            yield part


def _state(state: str, code: str, reason: str) -> State:
    number, _, by_signal = code.partition(":")
    shown = f"signal {by_signal}" if by_signal not in ("", "0") else number
    ended = state not in ACTIVE
    return State(state, shown if ended else "", "" if reason in NOT_A_REASON else reason)


def _from_disk(job: Submitted, task: str, run_dir: Path) -> State:
    """Tell a job that Slurm has forgotten from its stage's record and what its script left."""
    reason = "forgotten by Slurm, told from its run folder"
    stage_folder = (run_dir / job.run_dirs[task] if task in job.run_dirs else run_dir) / job.stage
    attempt = attempt_folder(job, task, run_dir)
    code = (attempt / "exit_code").read_text().strip() if (attempt / "exit_code").exists() else ""
    record = _record(stage_folder / RECORD)
    if code == "0" or (not code and job.name == job.stage and record.get("finished")):
        return State("COMPLETED", "0", reason)
    if code:
        return State("FAILED", code, reason)
    if os.path.lexists(attempt):
        return State("FAILED", "", f"{reason}: it was ended from outside")
    return State("CANCELLED", "", f"{reason}: it never began")


def _record(path: Path) -> dict:
    try:
        return read_json(path)
    except UserError:
        return {}
