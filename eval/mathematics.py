"""Are two mathematical expressions equal? math-verify says so, in a process of its own.

Not in this one, because sympy computes without end on some of what a model writes (``10^{10^{10}}``), because
math-verify's own time limit is an alarm signal, which works in a main thread only, and because sympy reads strings with
`eval`. The process may spend `SECONDS` of its own processor time on a comparison, however busy the machine is, and
`MEMORY` bytes; then the kernel ends it and another takes its place.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
from functools import lru_cache

SECONDS = 5
"""Processor time a comparison may take, in seconds; those of MATH's gold answers take up to 0.3."""
MEMORY = 2 << 30
PATIENCE = 300
"""Seconds by the clock until the process itself is taken to have failed."""


@lru_cache(maxsize=1 << 14)
def equal(gold: str, given: str) -> bool | None:
    """Tell whether two LaTeX or plain expressions (numbers, intervals, sets, matrices, equations, words) are equal.

    They are what would stand in a box, with or without units. None: it takes more than `SECONDS` or `MEMORY` to tell.

    Raises:
        RuntimeError: the process could not be started, was killed, or did not answer; that tells nothing of `given`.
    """
    with _lock:
        for attempt in (1, 2):
            try:
                return _running().ask(gold, given)
            except (OSError, EOFError) as error:
                _stop()
                if attempt == 2:
                    raise RuntimeError(f"the process that compares mathematics failed twice ({error})") from None
    raise AssertionError


class _Process:
    """The other side of the pipes, as long as it lives."""

    def __init__(self) -> None:
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eval.mathematics"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._reply()

    def ask(self, gold: str, given: str) -> bool | None:
        """Return the answer of the process; None where the kernel ended it over the question."""
        self._process.stdin.write(json.dumps([gold, given, SECONDS]).encode() + b"\n")
        self._process.stdin.flush()
        try:
            return self._reply()
        except EOFError:
            # SIGXCPU: out of time; SIGABRT: a library that aborts where it is given no more memory
            if self._process.wait() in (-signal.SIGXCPU, -signal.SIGABRT):
                _stop()
                return None
            raise

    def _reply(self) -> bool | None:
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        if not ready:
            raise OSError(f"no answer within {PATIENCE} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("it ended")
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


_process: _Process | None = None
_lock = threading.Lock()


def _running() -> _Process:
    global _process
    if _process is None:
        _process = _Process()
    return _process


@atexit.register
def _stop() -> None:
    global _process
    if _process is not None:
        _process.stop()
        _process = None


def _forget() -> None:
    global _process, _lock
    _process, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)  # the process belongs to the parent, and a thread may hold the lock there


def _serve() -> None:
    """Answer the questions on the standard input, a line each, until it is closed."""
    import logging
    import resource

    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing but replies may stand among the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    logging.disable(logging.CRITICAL)
    from math_verify import parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    replies.write("null\n")
    for line in sys.stdin:
        gold, given, seconds = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, most))
        try:
            sides = [parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, given)]
            reply = verify(*sides, allow_set_relation_comp=True, timeout_seconds=None)
        except MemoryError:
            reply = None
        except Exception:  # whatever sympy makes of it, it was not found to be equal
            reply = False
        replies.write(json.dumps(bool(reply) if reply is not None else None) + "\n")


if __name__ == "__main__":
    _serve()
