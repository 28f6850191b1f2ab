"""Procedural tasks with known answers from the reasoning-gym package, any size, seeded."""

from collections.abc import Iterator
from typing import Any

from data_recipes.errors import UserError, nearest
from data_recipes.sources import Place, SourceSettings


class Settings(SourceSettings):
    """``config`` holds the dataset's own fields (difficulty); ``size`` bounds how many questions are drawn."""

    dataset: str
    config: dict[str, Any] = {}
    seed: int = 0
    size: int = 2000


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield ``key``, ``question``, ``answer`` and the dataset's ``metadata`` for each generated question."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if settings.dataset not in DATASETS:
        raise UserError(f"reasoning-gym has no dataset {settings.dataset!r}{nearest(settings.dataset, DATASETS)}")
    try:
        dataset = reasoning_gym.create_dataset(
            settings.dataset, size=settings.size, seed=settings.seed, **settings.config
        )
    except (TypeError, AssertionError) as error:
        raise UserError(
            f"reasoning-gym dataset {settings.dataset!r} refuses config {settings.config}: {error}"
        ) from None
    for index in range(settings.size):
        entry = dataset[index]
        yield {
            "key": f"{settings.dataset}/{settings.seed}/{index}",
            "question": entry["question"],
            "answer": str(entry["answer"]),
            "metadata": entry["metadata"],
        }


def revision(settings: Settings, place: Place) -> str:
    """Return the package's version: with the seed and config it fixes every question."""
    from importlib.metadata import version

    return f"reasoning-gym {version('reasoning-gym')}"
