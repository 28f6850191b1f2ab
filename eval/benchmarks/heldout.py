"""The held-out questions of a mixture's instruction and domain tasks."""

from pathlib import Path

from data_recipes.mixture import HELDOUT, read_mixture
from data_recipes.row import Row
from eval.benchmarks import BenchmarkSettings


class Settings(BenchmarkSettings):
    """No settings of its own."""


def items(settings: Settings, mixture: Path) -> list[Row]:
    """Return the held-out rows that are not critiques."""
    return [row for row in read_mixture(mixture, HELDOUT) if row.kind != "critique"]
