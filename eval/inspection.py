"""`whetstone inspect RUN`: prompts, completions, the answers read and their verdicts, for a person to read."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError, nearest
from data_recipes.files import read_jsonl
from data_recipes.row import Row
from eval.run_folder import RunFolder, open_run, read_samples
from eval.scoring import CUT_SHORT

SHOWN_ELSEWHERE = 10


@dataclass(frozen=True)
class Wanted:
    """Which answers are shown; None and no verdicts: all of them."""

    row: str | None = None
    benchmark: str | None = None
    task: str | None = None
    verdicts: tuple[str, ...] = ()
    """Any of ``right``, ``wrong``, ``unparsed`` and ``truncated``."""


@dataclass(frozen=True)
class Judged:
    """A stored completion with its item and its verdict."""

    contestant: str
    row: Row
    sample: dict[str, Any]
    answer: str | None
    score: float | None
    """None: nothing judges it."""
    parsed: bool

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Return what can be said of it."""
        found = ["truncated"] if self.sample["finish_reason"] in CUT_SHORT else []
        if self.score is not None:
            found.append(("right" if self.score >= 1 else "wrong") if self.parsed else "unparsed")
        return tuple(found)


def judged(run: RunFolder, wanted: Wanted) -> Iterator[Judged]:
    """Yield the wanted answers, row after row, in the order of the items.

    Raises:
        UserError: there is no such row, benchmark or task, or a row has not been scored.
    """
    from data_recipes.files import read_json

    folders = [run.contestant(wanted.row)] if wanted.row is not None else run.contestants()
    _check(run, wanted)
    for folder in folders:
        if not (folder / "verdicts.jsonl").exists():
            raise UserError(f"{folder}: not scored yet; run 'whetstone score {run.path.parent}' first")
        name = read_json(folder / "settings.json")["name"]
        samples = {(s["benchmark"], s["id"], s["sample"]): s for s in read_samples(folder)}
        rows = {(label, row.id): row for label, _, row in run.asked(folder)}
        for line in read_jsonl(folder / "verdicts.jsonl"):
            row = rows.get((line["benchmark"], line["id"]))
            sample = samples.get((line["benchmark"], line["id"], line["sample"]))
            if row is None or sample is None:
                continue
            one = Judged(name, row, sample, line["answer"], line["score"], line["parsed"])
            if _is_wanted(one, wanted):
                yield one


def _check(run: RunFolder, wanted: Wanted) -> None:
    labels = list(run.benchmarks())
    if wanted.benchmark is not None and wanted.benchmark not in labels:
        raise UserError(f"{run.path}: no benchmark {wanted.benchmark!r}{nearest(wanted.benchmark, labels)}")
    if wanted.task is not None:
        tasks = {row.task for folder in run.contestants() for _, _, row in run.asked(folder)}
        if wanted.task not in tasks:
            raise UserError(f"{run.path}: no task {wanted.task!r}{nearest(wanted.task, tasks)}")


def _is_wanted(one: Judged, wanted: Wanted) -> bool:
    if wanted.benchmark not in (None, one.sample["benchmark"]) or wanted.task not in (None, one.row.task):
        return False
    return not wanted.verdicts or bool(set(wanted.verdicts) & set(one.verdicts))


def inspect(path: Path, wanted: Wanted, count: int | None = None, start: int = 0) -> None:
    """Show answers in a pager on a terminal, or print some of them elsewhere.

    Args:
        count: how many; None: all on a terminal, else the first ten.
        start: how many to pass over.

    Raises:
        UserError: there is no such run, row, benchmark or task, or nothing that is wanted.
    """
    from rich.console import Console

    if start < 0 or (count is not None and count < 1):
        raise UserError(f"inspect: --start {start} and -n {count}: give a number from 0 on and one from 1 on")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    if count is None and not sys.stdout.isatty():
        count = SHOWN_ELSEWHERE
    chosen = islice(judged(open_run(path), wanted), start, None if count is None else start + count)
    first = next(chosen, None)
    if first is None:
        raise UserError(f"{path}: no such answer; ask for other verdicts, or a smaller --start")
    if not sys.stdout.isatty():
        for number, one in enumerate([first, *chosen], start=start + 1):
            _show(console, number, one)
        return
    with console.pager(styles=True):
        for number, one in enumerate([first, *chosen], start=start + 1):
            _show(console, number, one)


def _show(console: Any, number: int, one: Judged) -> None:
    from rich.text import Text

    title = f"{number} · {one.contestant} · {one.row.task} · {one.row.id} · {', '.join(one.verdicts) or 'not judged'}"
    console.rule(plain(title), align="left", style="bold")
    for turn in one.sample["prompt"]:
        console.print(plain(f"[{turn.get('role')}]"), style="dim")
        console.print(plain(str(turn.get("content"))), style="dim")
    console.print(Text("[completion]", style="bold"))
    console.print(plain(str(one.sample["completion"])))
    if one.row.verifiers:
        read = "nothing could be read" if not one.parsed else one.answer
        console.print(plain(f"answer read: {read}\nright answer: {one.row.answer}\nscore: {one.score}"), style="bold")
    console.print()


def plain(text: str) -> Any:
    """Return text whose control characters cannot steer the terminal."""
    from rich.text import Text

    return Text("".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text))
