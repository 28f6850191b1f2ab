"""Whole rows from a JSON Lines file, such as those the critique stage writes."""

from collections.abc import Iterator
from typing import Any

from data_recipes.files import read_jsonl, sha256
from data_recipes.sources import Place, SourceSettings


class Settings(SourceSettings):
    """``path`` is relative to the recipe; ``{run}`` in it is the run folder."""

    path: str


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield each line as it stands: a row in the shape of `data_recipes.row.Row`."""
    yield from read_jsonl(place.resolve(settings.path))


def revision(settings: Settings, place: Place) -> str:
    """Return the file's content hash."""
    return f"sha256 {sha256(place.resolve(settings.path))}"
