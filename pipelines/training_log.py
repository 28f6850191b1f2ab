"""metrics.jsonl of a training run as thinned series: read as it grows, in memory that does not grow with it."""

import json
import os
import re
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

BUCKETS = 200
BYTES_AT_ONCE = 1 << 21
REINFORCED = (
    *("reward", "verdict", "located", "revised", "length", "zero_variance", "says_incorrect", "unparsed", "failed"),
    *("kl", "entropy", "alpha"),
)
"""Metrics of GRPO's rollouts, by task."""
BY_TASK = re.compile(
    rf"(?:loss|accuracy|margin|share|weight|{'|'.join(REINFORCED)}|eval_(?!generated/)[^/]+/(?:loss|accuracy|margin))/(.+)",
    re.DOTALL,
)
OF_A_SET = re.compile(r"eval_[^/]+/loss")
SCALARS = ("loss", "reward", "grad_norm", "learning_rate")


class Series:
    """A metric over steps, in `BUCKETS` to twice as many buckets of equally many points; a short one keeps them all.

    A bucket is (mean step, mean, lowest, highest), so a spike stays a spike.
    """

    def __init__(self) -> None:
        self._buckets = np.empty((0, 4))
        self._width = 1
        self._rest = np.empty((0, 2))
        """Points that do not yet fill a bucket."""
        self.count = 0
        self.last = 0.0
        self.lowest, self.highest = inf, -inf
        self.first_step, self.last_step, self.lowest_step = -1, -1, -1

    def extend(self, points: np.ndarray) -> None:
        """Add (n, 2) finite points at rising steps: (step, value); at least one."""
        lowest = int(np.argmin(points[:, 1]))
        if points[lowest, 1] < self.lowest:
            self.lowest, self.lowest_step = float(points[lowest, 1]), int(points[lowest, 0])
        self.highest = max(self.highest, float(points[:, 1].max()))
        self.first_step = int(points[0, 0]) if self.first_step < 0 else self.first_step
        self.last, self.last_step = float(points[-1, 1]), int(points[-1, 0])
        self.count += len(points)
        rest = np.concatenate([self._rest, points])
        while whole := min(len(rest) // self._width, 2 * BUCKETS - len(self._buckets)):
            taken = whole * self._width
            self._buckets = np.concatenate([self._buckets, _buckets(rest[:taken], self._width)])
            rest = rest[taken:]
            if len(self._buckets) == 2 * BUCKETS:
                self._buckets, self._width = _halved(self._buckets), 2 * self._width
        self._rest = rest.copy()

    def points(self, most: int) -> np.ndarray:
        """Return (n, 4) buckets, n at most about `most`: mean step, mean, lowest, highest."""
        points = self._buckets
        if len(self._rest):
            points = np.concatenate([points, _buckets(self._rest, len(self._rest))])
        while len(points) > most:
            even = len(points) // 2 * 2
            points = np.concatenate([_halved(points[:even]), points[even:]])
        return points


def _buckets(points: np.ndarray, width: int) -> np.ndarray:
    steps, values = points[:, 0].reshape(-1, width), points[:, 1].reshape(-1, width)
    return np.stack([steps.mean(1), values.mean(1), values.min(1), values.max(1)], axis=1)


def _halved(buckets: np.ndarray) -> np.ndarray:
    pairs = buckets.reshape(-1, 2, 4)
    return np.stack(
        [pairs[:, :, 0].mean(1), pairs[:, :, 1].mean(1), pairs[:, :, 2].min(1), pairs[:, :, 3].max(1)], axis=1
    )


class TrainingLog:
    """What the page draws of a metrics.jsonl; `read_new` takes in what was appended since it was last called."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self._offset, self._inode = 0, -1
        self.series: dict[str, Series] = {}
        """metric, as it is called in the log -> its values"""
        self._is_drawn: dict[str, bool] = {}
        self.tasks: list[str] = []
        self.sets: list[str] = []
        """Names of the evaluation sets: ``heldout`` first."""
        self.stopped: dict[str, int] = {}
        """task -> step at which early stopping set it aside"""
        self.seen_tokens: dict[str, float] = {}
        self.not_finite: dict[str, tuple[int, int]] = {}
        """metric -> on how many lines it was not a finite number, and the first step"""
        self.unreadable = 0
        self.step = 0
        self.epoch: float | None = None
        self._earlier_seconds = self._session_seconds = 0.0
        self._session_start: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training, over all sessions of a resumed run."""
        return self._earlier_seconds + self._session_seconds

    @property
    def seconds_per_step(self) -> float | None:
        """Pace of the present session."""
        if self._session_start is None or self.step <= self._session_start[0]:
            return None
        return (self._session_seconds - self._session_start[1]) / (self.step - self._session_start[0])

    def read_new(self) -> None:
        """Read the whole lines that were added; a log that was written anew (a run resumed) is read from its start."""
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed below; a missing log is an empty one
        except FileNotFoundError:
            self._forget()
            return
        with file:
            about = os.fstat(file.fileno())
            if about.st_size < self._offset or about.st_ino != self._inode:
                self._forget()
                self._inode = about.st_ino
            file.seek(self._offset)
            while lines := file.readlines(BYTES_AT_ONCE):
                if not lines[-1].endswith(b"\n"):
                    lines.pop()  # torn, or still being written
                if not lines:
                    break
                self._offset += sum(map(len, lines))
                self._take(_parsed([line.decode("utf-8", "replace") for line in lines]))

    def _take(self, lines: list[Any]) -> None:
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for line in lines:
            if isinstance(line, dict) and type(line.get("step")) is int:
                self._note_time(line["step"], line.get("seconds"))
                alike.setdefault(tuple(line), []).append(line)
            else:
                self.unreadable += 1
        columns: dict[str, list[np.ndarray]] = {}
        for keys, group in alike.items():  # (a key at a time: a long log has few kinds of lines and many of each)
            steps = np.array([line["step"] for line in group], dtype=float)
            for key in keys:
                if key not in self._is_drawn:
                    self._is_drawn[key] = self._enlists(key)
                values = [line[key] for line in group]
                if not set(map(type, values)) <= {int, float}:
                    continue
                if self._is_drawn[key]:
                    columns.setdefault(key, []).append(np.stack([steps, np.array(values, dtype=float)], axis=1))
                else:
                    self._note(key, values[-1])
        for key, pieces in columns.items():
            points = np.concatenate(pieces)
            self._add(key, points if len(pieces) == 1 else points[np.argsort(points[:, 0], kind="stable")])
        self.tasks.sort(key=lambda task: ("critique" in task, _natural(task)))
        self.sets.sort(key=lambda name: (name != "heldout", name))

    def _enlists(self, key: str) -> bool:
        """Return whether a metric is drawn; note its task and its evaluation set."""
        by_task = BY_TASK.fullmatch(key)
        generated = key.startswith("eval_generated/")
        if not (by_task or generated or key in SCALARS or OF_A_SET.fullmatch(key)):
            return False
        if by_task and by_task[1] not in self.tasks:
            self.tasks.append(by_task[1])
        name = key.partition("/")[0].removeprefix("eval_")
        if key.startswith("eval_") and not generated and name not in self.sets:
            self.sets.append(name)
        return True

    def _note(self, key: str, value: float) -> None:
        """Keep what is not drawn but told: the latest of it."""
        if key.startswith("seen_tokens/"):
            task = key.removeprefix("seen_tokens/")
            self.seen_tokens[task] = max(value, self.seen_tokens.get(task, 0))
        elif key.startswith("stopped/"):
            self.stopped[key.removeprefix("stopped/")] = int(value)
        elif key == "epoch":
            self.epoch = max(value, self.epoch or 0.0)

    def _note_time(self, step: int, seconds: Any) -> None:
        self.step = max(self.step, step)
        if type(seconds) is not float and type(seconds) is not int:
            return
        if self._session_start is None or seconds < self._session_seconds:  # the clock starts anew with each session
            self._earlier_seconds += self._session_seconds
            self._session_start = (step, seconds)
        self._session_seconds = seconds

    def _add(self, key: str, points: np.ndarray) -> None:
        finite = np.isfinite(points[:, 1])
        if not finite.all():
            count, first = self.not_finite.get(key, (0, int(points[~finite, 0][0])))
            self.not_finite[key] = (count + int((~finite).sum()), first)
            points = points[finite]
        if len(points):
            self.series.setdefault(key, Series()).extend(points)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts task_2 before task_10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d{1,18})", name)]


def _parsed(lines: list[str]) -> list[Any]:
    """Return the lines' values, None where one is not JSON."""
    try:
        return json.loads(f"[{','.join(lines)}]")  # several times as fast as line by line
    except (ValueError, RecursionError):
        return [_parsed_line(line) for line in lines]


def _parsed_line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
