"""The held-out questions of a mixture's instruction and domain tasks, and the corrections of wrong answers."""

from collections import defaultdict
from pathlib import Path

from pydantic import Field

from data_recipes.row import Row
from data_recipes.store import HELDOUT, read_mixture
from eval.benchmarks import BenchmarkSettings, needed
from eval.critique import is_critique


class Settings(BenchmarkSettings):
    """``items_per_task`` bounds how many questions of each task are asked; 0: all."""

    items_per_task: int = Field(0, ge=0)


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Return the first held-out rows of every task that is not a critique."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in read_mixture(needed(mixture, settings.type), HELDOUT):
        if not is_critique(row):
            by_task[row.task].append(row)
    return [row for rows in by_task.values() for row in rows[: settings.items_per_task or None]]
