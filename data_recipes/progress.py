"""Progress that a person can follow: a Rich bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """Print one plain line at once."""
    print(message, flush=True)


def console() -> Any:
    """Return a Rich console for tables: as wide as the terminal, and wide enough for a table in a log file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=130)


class Bar:
    """Shows `done` of `total`; use it as a context manager."""

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        self._description, self._total, self._done = description, total, done
        self._start = self._last = time.monotonic()
        self._rich = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            text = TextColumn("  {task.description}", markup=False)  # names are the user's
            note = TextColumn("{task.fields[note]}", style="dim")
            self._rich = Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
            self._task = self._rich.add_task(description, total=total, completed=done, note="")

    def __enter__(self) -> "Bar":
        if self._rich:
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich:
            self._rich.stop()

    def advance(self, note: str = "") -> None:
        """Count one more as done; `note` is shown beside it."""
        self._done += 1
        if self._rich:
            self._rich.update(self._task, advance=1, **({"note": note} if note else {}))
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last = now
            tail = f", {note}" if note else ""
            say(f"  {self._description}: {self._done}/{self._total} ({now - self._start:.0f} s){tail}")


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done."""
    with Bar(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
