"""Critique accuracy: is a sampled answer to a held-out question right or wrong? Balanced classes, so chance is 50 %."""

from pathlib import Path

from data_recipes.row import Row
from data_recipes.store import HELDOUT, read_mixture
from eval.benchmarks import BenchmarkSettings, needed
from eval.critique import is_critique


class Settings(BenchmarkSettings):
    """Critiques are longer than answers."""

    max_tokens: int = 72


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Return the held-out critique rows."""
    return [row for row in read_mixture(needed(mixture, settings.type), HELDOUT) if is_critique(row)]
