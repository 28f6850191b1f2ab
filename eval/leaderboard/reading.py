"""Run folders -> checked results, one a row of the leaderboard."""

import json
import unicodedata
from collections import Counter
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, field_validator, model_validator

from data_recipes.errors import UserError, nearest
from data_recipes.validation import clause, validated

M = TypeVar("M", bound=BaseModel)

Score = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]
Bits = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Figure(BaseModel):
    """A benchmark's metric; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    percent: bool = True

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        return value if value is not None and isfinite(value) else None


class BenchmarkResult(BaseModel):
    """What one row reached on one benchmark."""

    headline: Literal["micro", "macro"] = "macro"
    extraction: str = ""
    on_failure: str = "wrong"
    strip_reasoning: bool = False
    scores: dict[str, dict[str, Score]]
    clusters: dict[str, str] = {}
    answers: dict[str, Count] = {}
    unparsed: dict[str, Count] = {}
    truncated: dict[str, Count] = {}
    metrics: dict[str, Figure] = {}
    bits_per_byte: dict[str, dict[str, Bits]] = {}
    num_tokens: Count = 0
    num_prompt_tokens: Count = 0
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _no_more_than_asked(self) -> "BenchmarkResult":
        for name in ("unparsed", "truncated"):
            for task, count in getattr(self, name).items():
                if count > self.answers.get(task, 0):
                    raise ValueError(f"{count} {name} of {self.answers.get(task, 0)} answers to {task!r}")
        return self

    def share(self, name: Literal["unparsed", "truncated"], task: str | None = None) -> float | None:
        """Return the share of answers that could not be read or were cut short; None where none was counted."""
        tasks = self.answers if task is None else [task]
        asked = sum(self.answers.get(one, 0) for one in tasks)
        return sum(getattr(self, name).get(one, 0) for one in tasks) / asked if asked else None


class Result(BaseModel):
    """One row: a ``results.json``."""

    name: str = Field(min_length=1)
    settings: dict[str, Any] = {}
    command: str = ""
    versions: dict[str, Any] = {}
    benchmarks: dict[str, BenchmarkResult]
    num_tokens: Count = 0
    num_prompt_tokens: Count = 0
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)
    sessions: int = 1


class About(BaseModel):
    """A run: its ``eval/run.json``."""

    name: str = ""
    command: str = ""
    versions: dict[str, Any] = {}
    order: list[str] = []
    baselines: list[str] = []


class RunRow(BaseModel):
    """A row of the board and where it comes from."""

    name: str
    """As it is shown: without characters that cannot be seen, with its run's name where two rows share one."""
    result: Result
    folder: Path
    is_baseline: bool


class Run(BaseModel):
    """A run folder's rows, in their order."""

    folder: Path
    about: About
    rows: list[RunRow]
    notes: list[str]


def visible(text: str) -> str:
    """Return the text with every control, format and half character replaced, so that it shows as it is."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def read_runs(folders: list[Path]) -> list[Run]:
    """Read run folders; rows whose names clash are called ``run: row``.

    Raises:
        UserError: a folder holds no evaluated model, is given twice, or one of its files is damaged.
    """
    if not folders:
        raise UserError("leaderboard: no run folder; give at least one, such as runs/mine")
    twice = next((folder for k, folder in enumerate(folders) if folder.resolve() in _resolved(folders[:k])), None)
    if twice:
        raise UserError(f"{twice}: given twice; name every run folder once")
    runs = [_read_run(folder) for folder in folders]
    titles = Counter(run.about.name for run in runs)
    counts = Counter(row.name for run in runs for row in run.rows)
    for run in runs:
        title = visible(run.about.name if titles[run.about.name] == 1 else str(run.folder))
        for row in run.rows:
            row.name = f"{title}: {row.name}" if counts[row.name] > 1 else row.name
    names = [row.name for run in runs for row in run.rows]
    again = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if again:
        raise UserError(f"leaderboard: two rows would be called {again!r}; rename one of them or its run")
    return runs


def _resolved(folders: list[Path]) -> list[Path]:
    return [folder.resolve() for folder in folders]


def _read_run(folder: Path) -> Run:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run folder, such as runs/mine")
    place = folder / "eval" if (folder / "eval").is_dir() else folder
    paths = sorted(place.glob("*/results.json"))
    if not paths:
        raise UserError(f"{folder}: nothing has been evaluated here; run 'whetstone eval FILE' first")
    file = place / "run.json"
    about = _checked(About, file, "run 'whetstone eval FILE' again to write it anew") if file.exists() else About()
    about.name = about.name or folder.resolve().name
    unknown = next((name for name in about.baselines if about.order and name not in about.order), None)
    if unknown is not None:
        raise UserError(f"{file}: the baseline {unknown!r} is none of the rows in order{nearest(unknown, about.order)}")
    found: dict[str, RunRow] = {}
    for path in paths:
        result = _checked(Result, path, f"'whetstone score {folder}' writes it anew")
        if result.name in found:
            where = found[result.name].folder / "results.json"
            raise UserError(f"{path}: a second row called {result.name!r}, after {where}; move one of them away")
        found[result.name] = RunRow(
            name=visible(result.name),
            result=result,
            folder=path.parent,
            is_baseline=result.name in about.baselines,
        )
    order = about.order or list(found)
    rows = [found[name] for name in order if name in found]
    if not rows:
        raise UserError(f"{file}: none of its rows ({', '.join(order)}) has results; run 'whetstone eval FILE' again")
    notes = []
    left_out = [visible(name) for name in found if name not in order]
    if left_out:
        notes.append(f"Left out, as the run no longer names them: {', '.join(left_out)}.")
    missing = [visible(name) for name in order if name not in found]
    if missing:
        notes.append(f"Not evaluated yet: {', '.join(missing)}.")
    return Run(folder=folder, about=about, rows=rows, notes=notes)


def _checked(model: type[M], path: Path, mend: str) -> M:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable JSON file ({clause(error)}); {mend}") from None
    try:
        return validated(model, value, str(path))
    except UserError as error:
        raise UserError(f"{visible(str(error))}; {mend}") from None
