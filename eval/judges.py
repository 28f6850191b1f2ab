"""Verifiers in processes of their own, with a time limit: one that hangs, raises, dies or returns no number spoils only
its own sample.

Training asks these instead of `eval.verifiers.verify`: a reward that could not be had is reported as such and never
becomes a low one. As a program (``python -m eval.judges NAME ...``) this is the process that judges.
"""

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from data_recipes.row import Row
from eval.processes import die_with_parent
from eval.verifiers import Verdict, load_verifier, verify

START_SECONDS = 120.0
"""Longest a process may take to import its verifiers."""


@dataclass(frozen=True)
class Judged:
    """A verdict, or why there is none."""

    verdict: Verdict
    problem: str | None = None
    """What the verifier did instead of answering: it hung, raised, died or returned something that is no number."""
    parts: dict[str, float] = field(default_factory=dict)
    """What the score is made of, by name, where it is made of several."""
    revision: str | None = None
    """What a reviser made of the judged critique, where a part is judged by that."""


class Judges:
    """Processes that judge completions side by side. They die with the one that started them."""

    def __init__(self, verifiers: Iterable[str], workers: int, timeout: float) -> None:
        """Prepare; processes are started when there is something to judge.

        Args:
            verifiers: names, imported before the clock starts.
            timeout: longest time for one completion, in seconds.
        """
        self._names, self._timeout = sorted(set(verifiers)), timeout
        self._workers: list[_Worker | None] = [None] * max(1, workers)

    def judge(self, asked: Sequence[tuple[Row, str]]) -> list[Judged]:
        """Return what each (row, completion) is worth, in their order."""
        found: list[Judged | None] = [None] * len(asked)
        waiting = list(range(len(asked)))[::-1]
        running: dict[int, tuple[int, float]] = {}
        """place of a worker -> what it judges, and until when"""
        while waiting or running:
            for place in range(len(self._workers)):
                if waiting and place not in running:
                    number = waiting.pop()
                    worker = self._workers[place] = self._workers[place] or _Worker(self._names)
                    worker.ask(*asked[number])
                    running[place] = number, time.monotonic() + self._timeout
            with selectors.DefaultSelector() as selector:
                for place in running:
                    selector.register(self._workers[place].output, selectors.EVENT_READ, place)
                nearest = min(deadline for _, deadline in running.values())
                ready = {key.data for key, _ in selector.select(max(0.0, nearest - time.monotonic()))}
            for place, (number, deadline) in list(running.items()):
                if place in ready:
                    found[number] = self._workers[place].answer()
                elif time.monotonic() >= deadline:
                    found[number] = _none(f"no answer in {self._timeout:g} s")
                if found[number] is not None:
                    del running[place]
                    if not self._workers[place].alive or place not in ready:
                        self._workers[place].kill()
                        self._workers[place] = None
        return found

    def close(self) -> None:
        """End the processes."""
        for place, worker in enumerate(self._workers):
            if worker:
                worker.kill()
                self._workers[place] = None


class _Worker:
    def __init__(self, names: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eval.judges", *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
            start_new_session=True,  # so that it can be killed with all it started
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *_python_path()])},
        )
        self.output, self._buffer = self._process.stdout.fileno(), b""
        self.alive = self._wait_for_line(START_SECONDS) is not None

    def ask(self, row: Row, completion: str) -> None:
        line = json.dumps({"row": row.model_dump(), "completion": completion})
        with suppress(BrokenPipeError):  # it died: `answer` will say so
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> Judged | None:
        """Return what it says; None while its line is not whole."""
        line = self._read_line()
        if not self.alive:
            return _none(f"its process died (exit code {self._process.wait()})")
        if line is None:
            return None
        said = json.loads(line)
        return _none(said["problem"]) if "problem" in said else Judged(Verdict(said["score"], said["answer"]))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _read_line(self) -> bytes | None:
        chunk = os.read(self.output, 1 << 20)
        self.alive = bool(chunk)
        self._buffer += chunk
        line, end, rest = self._buffer.partition(b"\n")
        if not end:
            return None
        self._buffer = rest
        return line

    def _wait_for_line(self, seconds: float) -> bytes | None:
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.output, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                line = self._read_line()
                if line is not None or not self.alive:
                    return line
        return None


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _none(problem: str) -> Judged:
    return Judged(Verdict(None, None), problem)


def _answer(asked: dict) -> dict:
    try:
        verdict = verify(Row.model_validate(asked["row"]), asked["completion"])
    except BaseException as error:  # a verifier may even call exit()
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    score = verdict.score
    if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
        return {"problem": f"returned {score!r}, which is no number"}
    return {"score": None if score is None else float(score), "answer": verdict.answer}


def _serve(names: list[str]) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a verifier prints is no reply
    for name in names:
        load_verifier(name)
    print("ready", file=replies)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=replies)


if __name__ == "__main__":
    _serve(sys.argv[1:])
