"""Answers that another program asked for and judged: its own scores are shown, nothing is asked and nothing read."""

from collections import defaultdict
from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.row import Row
from eval.benchmarks import Answered, BenchmarkSettings
from eval.statistics import Scores

PREFERRED = ("exact_match", "acc_norm", "acc", "pass@1", "f1")
"""Which of a program's metrics is the score, where it has several."""


class Settings(BenchmarkSettings):
    """Which of the program's metrics is the score."""

    metric: str = ""
    """Its name, such as ``flexible-extract/exact_match``; empty: exact_match, else acc_norm, acc, pass@1 or f1."""


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Refuse to ask: the items are another program's.

    Raises:
        UserError: always.
    """
    raise UserError("benchmark 'imported' holds another program's answers and asks nothing; use 'whetstone import'")


def scores(settings: Settings, answered: list[Answered]) -> Scores:
    """Return the recorded score of every item, by task.

    Raises:
        UserError: an item has no such metric.
    """
    found: Scores = defaultdict(dict)
    for one in answered:
        recorded = one.row.meta.get("scores") or {}
        name = settings.metric or _preferred(recorded)
        if name not in recorded:
            from data_recipes.errors import nearest

            raise UserError(f"{one.row.id}: no metric {name!r} was recorded{nearest(name, recorded)}")
        if not 0 <= recorded[name] <= 1:
            raise UserError(
                f"{one.row.id}: {name} is {recorded[name]:g}, but a score lies between 0 and 1; import another metric's"
                " files"
            )
        found[one.row.task][one.row.id] = float(recorded[name])
    return dict(found)


def _preferred(recorded: dict[str, float]) -> str:
    ranked = [name for wanted in PREFERRED for name in recorded if name.rpartition("/")[2] == wanted]
    return next(iter([*ranked, *recorded]), "")
