"""The inside of `eval.sandbox`: it builds the walls and judges what happens behind them.

It runs as four processes, from the outside in:

=======  =================================================================================================
keeper   starts the others in namespaces of their own, and waits; ends with the harness that started it
referee  process 1 of the namespaces: builds the walls, keeps time and output, reports to the harness
tests    runs the tests, where there are any (`test_side`); what it tells the referee is the verdict
program  runs the model's code (`model_side`); answers the tests' calls, and has no other way to them
=======  =================================================================================================

The tests are read after the program's process was split off, so they are not in its memory. The files of this folder
are imported by name in an interpreter without packages: standard library only, and little of it, for every run starts
anew.
"""

from __future__ import annotations

import _signal as signal  # the module's half in C; the other one takes long to import
import fcntl
import marshal
import os
import select
import sys
import time

import walls
from model_side import OUT_OF_MEMORY, run_script, serve
from test_side import run_tests
from wire import receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

SHOWN_BYTES = 1 << 16
"""Most that is kept of each of the program's outputs; the rest is read and forgotten."""
IDLE = 4
"""A run may take this many times its processor time by the clock, so that a busy machine makes no program wrong."""


def main() -> None:
    """Be the keeper."""
    sys.path.pop()  # where this file was found
    sys.dont_write_bytecode = True
    parent, job = marshal.loads(receive(0))
    walls.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    step = "clone"
    try:
        mapped, tell_mapped = os.pipe()
        pid = walls.clone()
        if pid == 0:
            os.close(tell_mapped)
            walls.die_with_parent()
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which process 1 of a namespace does not even get
            if os.read(mapped, 1):
                referee(job)
            os._exit(1)
        step = "ids"
        walls.map_ids(pid)
        os.write(tell_mapped, b".")
    except OSError as error:
        report_broken(step, error)
    os.waitpid(pid, 0)


def report_broken(step: str, error: BaseException) -> NoReturn:
    """Tell the harness that the sandbox itself did not come to stand, and end."""
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    report("broken", f"{step}\n{number}\n{type(error).__name__}: {error}")


def report(
    status: str, detail: str = "", passed: int = 0, failed: int = 0, seconds: float = 0.0, *texts: bytes
) -> NoReturn:
    """Tell the harness how it went, and end."""
    blobs = [detail.encode(errors="replace"), *texts]
    sizes = " ".join(str(len(blob)) for blob in blobs)
    left = f"{status} {passed} {failed} {seconds:.4f} {sizes}\n".encode() + b"".join(blobs)
    while left:
        left = left[os.write(1, left) :]
    os._exit(0)


def referee(job: dict[str, Any]) -> NoReturn:
    """Build the walls, start program and tests behind them, and report what became of them."""
    step = "view"
    try:
        walls.build_view(job["packages"])
        step = "processes"
        output, errors = os.pipe(), os.pipe()
        streams = [stdin_of(job["stdin"]), output[1], errors[1]]
        limits = (job["seconds"], job["memory_mb"])
        if job["tests"]:
            requests, replies, verdict = os.pipe(), os.pipe(), os.pipe()
            program = start(lambda: serve(3, 4), [*streams, requests[0], replies[1]], limits)
            close(requests[0], replies[1])
            nothing = os.open("/dev/null", os.O_RDWR)
            judge = [0, nothing, nothing, requests[1], replies[0], verdict[1]]
            tests = start(lambda: run_tests(job["together"], 0, 3, 4, 5), judge, limits)
            close(requests[1], replies[0], verdict[1])
        else:
            source = receive(0, sys.maxsize).decode()
            program, tests, verdict = start(lambda: run_script(source), streams, limits), None, None
        close(*streams)
    except Exception as error:
        report_broken(step, error)
    said, shown, complaints = Counted(), Kept(), Kept()
    sinks = {output[0]: shown, errors[0]: complaints} | ({verdict[0]: said} if verdict else {})
    in_time, ended = watch(program, tests, sinks, verdict and verdict[0], job["seconds"])
    status, detail, seconds = conclude(program, tests, said, in_time, ended, job["seconds"])
    failed = said.failed or int(tests is not None and status != "passed")
    report(status, detail, said.passed, failed, seconds, bytes(shown.data), bytes(complaints.data))


def stdin_of(text: bytes) -> int:
    """Return a file of the text that nobody can find."""
    if not text:
        return os.open("/dev/null", os.O_RDONLY)
    with open("stdin", "wb") as file:
        file.write(text)
    fd = os.open("stdin", os.O_RDONLY)
    os.unlink("stdin")
    return fd


def close(*fds: int) -> None:
    """Close the files."""
    for fd in fds:
        os.close(fd)


def start(work: Callable[[], NoReturn], files: list[int], limits: tuple[float, int]) -> int:
    """Start a process without privileges that does `work` with no open files but these, numbered from 0.

    Raises:
        RuntimeError: it could not be confined; nothing of `work` was done.
    """
    ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 32) for fd in (*files, ready[1])]
            for number, fd in enumerate(moved):
                os.dup2(fd, number)
            os.closerange(len(moved), 1024)
            walls.confine(*limits)
            with open(os.__file__, "rb"):
                pass  # the library has to be readable for nobody, too
            os.write(len(files), b"ready")
            os.close(len(files))
        except BaseException as error:
            os.write(len(files), f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        try:
            work()
        finally:
            os._exit(1)  # whatever happens, nothing returns from here into the referee's code
    os.close(ready[1])
    said = b""
    while block := os.read(ready[0], 4096):
        said += block
    os.close(ready[0])
    if said != b"ready":
        raise RuntimeError(said.decode(errors="replace") or "a process ended before it was confined")
    return pid


class Kept:
    """The beginning of an output."""

    def __init__(self) -> None:
        self.data = bytearray()

    def take(self, block: bytes) -> None:
        """Keep of the block what there is room for."""
        self.data += block[: SHOWN_BYTES - len(self.data)]


class Counted:
    """What the tests say: a sign for every assertion, then a line with the status and one with the reason."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self.ending = bytearray()

    def take(self, block: bytes) -> None:
        """Count the signs."""
        if not self.ending:
            signs, newline, block = block.partition(b"\n")
            self.passed += signs.count(b"+")
            self.failed += signs.count(b"-")
            block = newline + block
        self.ending += block


def watch(
    program: int, tests: int | None, sinks: dict[int, Any], verdict: int | None, limit: float
) -> tuple[bool, dict[int, Any]]:
    """Read what is written until the tests are over, or without tests the program; or until the time is up.

    Returns:
        Whether it ended in time, and what `os.wait4` said of processes that have ended already.
    """
    poller = select.poll()
    for fd in sinks:
        poller.register(fd, select.POLLIN)
    begin = time.monotonic()
    ended: dict[int, Any] = {}
    while True:
        left = limit - processor_seconds(program) - processor_seconds(tests)
        left = min(left, limit * IDLE - (time.monotonic() - begin))
        if left <= 0:
            return False, ended
        for fd, _ in poller.poll(max(1, int(left * 1000)) if sinks else 2):
            block = os.read(fd, 1 << 16)
            if block:
                sinks[fd].take(block)
            else:
                poller.unregister(fd)
                del sinks[fd]
        if verdict is not None:
            if verdict not in sinks:
                return True, ended
        elif not sinks:  # (also where the program closed its outputs and goes on)
            pid, status, usage = os.wait4(program, os.WNOHANG)
            if pid:
                return True, {pid: (status, usage)}


def processor_seconds(pid: int | None) -> float:
    """Return the processor time a process has used; 0 where it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2) if pid else 0.0  # clock_getcpuclockid(3)
    except OSError:
        return 0.0


def conclude(
    program: int, tests: int | None, said: Counted, in_time: bool, ended: dict[int, Any], limit: float
) -> tuple[str, str, float]:
    """End the processes; return the status, the reason in a few words, and the processor time in seconds."""
    status, _, detail = said.ending[1:].decode(errors="replace").partition("\n")
    if status == "gone" and in_time:
        ended |= reap(program, patience=0.2)
    by_itself = program in ended
    for pid in filter(None, (tests, program)):
        if pid not in ended:
            os.kill(pid, signal.SIGKILL)
            ended |= reap(pid)
    seconds = sum(usage.ru_utime + usage.ru_stime for _, usage in ended.values())
    if not in_time or seconds >= limit:
        return "timeout", "", seconds
    if tests is None or (status == "gone" and by_itself):
        return *ending_of(ended[program][0], tests is not None), seconds
    if status == "gone":
        return "failed", "the program stopped answering its tests", seconds
    if not status:
        return "killed", "the tests were ended before their end", seconds
    return status, detail, seconds


def reap(pid: int, patience: float | None = None) -> dict[int, Any]:
    """Return {pid: its status and usage}, waiting for its end no longer than `patience` seconds; {} where it lives."""
    begin = time.monotonic()
    while patience is not None and time.monotonic() - begin < patience:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return {pid: (status, usage)}
        time.sleep(0.001)
    if patience is not None:
        return {}
    _, status, usage = os.wait4(pid, 0)
    return {pid: (status, usage)}


def ending_of(status: int, early: bool) -> tuple[str, str]:
    """Return a program's status and the reason from how its process ended."""
    if os.WIFSIGNALED(status):
        return "killed", f"the program was ended by {signal.strsignal(os.WTERMSIG(status))}"
    code = os.WEXITSTATUS(status)
    if early:
        return "failed", "the program ended before its tests"
    return ("passed", "") if code == 0 else ("memory" if code == OUT_OF_MEMORY else "failed", f"exit status {code}")
