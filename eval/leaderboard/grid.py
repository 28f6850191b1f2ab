"""The board as a table of text: what each column is called and what stands in each cell."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from eval.leaderboard.board import Board, Line
from eval.leaderboard.columns import Column, Entry
from eval.leaderboard.reading import Figure, visible
from eval.statistics import Estimate

Kind = Literal["mean", "task", "metric", "bits", "failures", "cost"]
KINDS: dict[Kind, str] = {
    "mean": "means",
    "task": "tasks",
    "metric": "metrics",
    "bits": "bits per byte",
    "failures": "unparsed, truncated",
    "cost": "tokens, seconds",
}
MANY_TASKS = 16
"""A board with more tasks shows them on demand."""
MANY_ITEMS = 400
"""A task with at least as many items is shown to a tenth of a percent."""


@dataclass(frozen=True)
class Cell:
    """A figure as it is printed, and what it is sorted by."""

    text: str = "–"
    value: float | None = None
    interval: tuple[str, str] | None = None
    """Bounds of its 95 % interval."""
    notes: tuple[str, ...] = ()
    filter: str = ""
    """Which samples it leads to: a part of the sample page's address; without one the cell leads nowhere."""


@dataclass(frozen=True)
class Head:
    """A column of the table: a figure of one benchmark (``benchmark`` is empty for those of all) for every row."""

    name: str
    benchmark: str
    kind: Kind
    cells: list[Cell]
    title: str = ""


def grid(board: Board) -> list[Head]:
    """Return the table's columns in order: means first, then benchmark by benchmark, then costs."""
    heads = [
        Head(
            f"{label} {_weighing(column)}",
            label,
            "mean",
            [_mean_cell(line.entries.get(label), column, number) for number, line in enumerate(board.lines)],
            explained(column),
        )
        for label, column in board.columns.items()
    ]
    for label, column in board.columns.items():
        entries = [line.entries.get(label) for line in board.lines]
        if len(column.tasks) > 1:
            for task in column.tasks:
                cells = [_task_cell(entry.tasks.get(task) if entry else None, task) for entry in entries]
                heads.append(Head(visible(task), label, "task", cells))
        for name in column.metrics:
            figures = [entry.result.metrics.get(name) if entry else None for entry in entries]
            unit = ", %" if any(figure and figure.percent for figure in figures) else ""
            title = f"{visible(name)} of {label}{unit}"
            heads.append(Head(f"{label}: {visible(name)}", label, "metric", [_metric_cell(f) for f in figures], title))
        if any(entry and entry.bits for entry in entries):
            cells = [_bits_cell(entry) for entry in entries]
            heads.append(Head(f"{label}: bits/byte", label, "bits", cells, "of the right answers; lower is better"))
        for what in ("unparsed", "truncated"):
            cells = [_failure_cell(line, line.entries.get(label), what) for line in board.lines]
            heads.append(Head(f"{label}: {what}", label, "failures", cells, "% of its answers"))
    return heads + _costs(board.lines)


def _weighing(column: Column) -> str:
    return "" if len(column.tasks) == 1 else "micro" if column.headline == "micro" else "mean"


def explained(column: Column) -> str:
    if len(column.tasks) == 1:
        return f"% of {len(column.items):,} items"
    if column.headline == "micro":
        return f"% of {len(column.items):,} items of {len(column.tasks)} tasks, every item alike"
    return f"mean over {len(column.tasks)} tasks, every task alike, %"


def _interval(estimate: Estimate, scale: float, digits: int) -> tuple[str, str]:
    return f"{scale * estimate.low:.{digits}f}", f"{scale * estimate.high:.{digits}f}"


def _mean_cell(entry: Entry | None, column: Column, number: int) -> Cell:
    if entry is None:
        return Cell()
    one = entry.headline
    best, worst = column.ranks[number]
    notes = []
    if len(column.results) > 1:
        notes.append(f"rank {best}" if best == worst else f"rank {best}–{worst}")
    if entry.half_by_subject is not None and column.headline == "micro":
        notes.append(f"by subject ± {100 * entry.half_by_subject:.1f}")
    if one.n != len(column.items):
        notes.append(f"{one.n:,} of {len(column.items):,} items")
    return Cell(f"{100 * one.value:.1f}", 100 * one.value, _interval(one, 100, 1), tuple(notes), "show=all")


def _task_cell(one: Estimate | None, task: str) -> Cell:
    if one is None:
        return Cell()
    digits = 1 if one.n >= MANY_ITEMS else 0
    bounds = _interval(one, 100, digits)
    address = urlencode({"task": task}, errors="replace")
    return Cell(f"{100 * one.value:.{digits}f}", 100 * one.value, bounds, filter=address)


def _metric_cell(figure: Figure | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell()
    shown = [None if x is None else f"{100 * x:.1f}" if figure.percent else f"{x:.3g}" for x in _three(figure)]
    bounds = (shown[1], shown[2]) if shown[1] and shown[2] else None
    return Cell(shown[0] or "–", (100 if figure.percent else 1) * figure.value, bounds)


def _three(figure: Figure) -> tuple[float | None, float | None, float | None]:
    return figure.value, figure.low, figure.high


def _bits_cell(entry: Entry | None) -> Cell:
    if entry is None or entry.bits is None:
        return Cell()
    return Cell(f"{entry.bits.value:.3f}", entry.bits.value, _interval(entry.bits, 1, 3))


def _failure_cell(line: Line, entry: Entry | None, what: Literal["unparsed", "truncated"]) -> Cell:
    unknown = what == "truncated" and line.settings.get("imported")  # such files do not say how a completion ended
    return Cell() if entry is None or unknown else _share_cell(entry.result.share(what), what)


def _share_cell(value: float | None, what: str) -> Cell:
    if value is None:
        return Cell()
    return Cell(f"{100 * value:.1f}", 100 * value, filter=f"show={what}" if what and value else "")


def _costs(lines: list[Line]) -> list[Head]:
    def head(name: str, kind: Kind, cells: list[Cell], title: str) -> Head:
        return Head(name, "", kind, cells, title)

    def counts(name: str) -> list[Cell]:
        found = [getattr(line, name) for line in lines]
        return [Cell(f"{value:,.0f}", value) if value else Cell() for value in found]

    several = any(len(line.entries) > 1 for line in lines)
    return [
        *(
            head(what, "failures", [_share_cell(getattr(line, what), "") for line in lines], "% of all answers")
            for what in ("unparsed", "truncated")
            if several
        ),
        head("tokens", "cost", counts("num_tokens"), "tokens written"),
        head("prompt tokens", "cost", counts("num_prompt_tokens"), "tokens read"),
        head("seconds", "cost", counts("seconds"), "spent generating"),
    ]


def shows_tasks(board: Board) -> bool:
    """Return whether the tasks are few enough to be shown at once."""
    return sum(len(column.tasks) for column in board.columns.values() if len(column.tasks) > 1) <= MANY_TASKS
