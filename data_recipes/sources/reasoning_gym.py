"""Procedural tasks with known answers from the reasoning-gym package, any size, seeded."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from data_recipes.errors import UserError, nearest
from data_recipes.sources import Place, SourceSettings
from data_recipes.validation import clause


class Settings(SourceSettings):
    """``config`` holds the dataset's own fields (difficulty); ``size`` bounds how many questions are drawn."""

    dataset: str
    config: dict[str, Any] = {}
    seed: int = 0
    size: int = Field(2000, ge=1)


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield ``key``, ``question``, ``answer`` and the dataset's ``metadata`` for each generated question."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if settings.dataset not in DATASETS:
        known = nearest(settings.dataset, DATASETS)
        raise UserError(f"reasoning-gym has no dataset {settings.dataset!r}{known}; take one of its gallery")
    dataset = None
    for index in range(settings.size):
        try:
            if dataset is None:
                dataset = reasoning_gym.create_dataset(
                    settings.dataset, size=settings.size, seed=settings.seed, **settings.config
                )
            entry = dataset[index]
        except Exception as error:  # every data set checks its config in its own way, some at the first question
            raise UserError(
                f"reasoning-gym dataset {settings.dataset!r} refuses config {settings.config}: {clause(error)};"
                " mend the config"
            ) from None
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
