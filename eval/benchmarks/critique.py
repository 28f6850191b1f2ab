"""Critique accuracy: is a sampled answer to a held-out question right or wrong? Balanced classes, so chance is 50 %."""

from pathlib import Path

from data_recipes.row import Row
from data_recipes.store import HELDOUT, read_mixture
from eval.benchmarks import Answered, BenchmarkSettings, Metric, needed
from eval.critique import is_critique
from eval.critique_metrics import verdict_metrics


class Settings(BenchmarkSettings):
    """Critiques are longer than answers."""

    max_tokens: int = 72


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Return the held-out critique rows."""
    return [row for row in read_mixture(needed(mixture, settings.type), HELDOUT) if is_critique(row)]


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return F1 of the wrong class, and the accuracy by class and by certainty."""
    return verdict_metrics(answered)
