"""A split of a data set on the Hugging Face hub, its revision pinned to the commit that was read."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import field_validator

from data_recipes.errors import UserError
from data_recipes.files import sha256
from data_recipes.sources import Place, SourceSettings
from data_recipes.sources.files import exploded
from data_recipes.validation import clause


class Settings(SourceSettings):
    """``dataset`` is a hub id (owner/name) or a local folder of the same layout."""

    dataset: str
    config: str | None = None
    """The data set's configuration."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit; the manifest holds the commit it stood for."""
    explode: str | None = None
    """A column that holds a list of records: each becomes a record, beside the other columns."""

    @field_validator("split")
    @classmethod
    def _is_one(cls, split: str) -> str:
        if not re.fullmatch(r"[\w.-]+", split):  # which could hide a test split
            raise ValueError(f"{split!r} is not one split; give one by its name ('train_rows' takes part of it)")
        return split


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield every row's columns; ``key`` is its number in the split."""
    for number, record in enumerate(_load(settings, place)):
        record = {**record, "key": f"{settings.split}:{number}"}
        yield from [record] if settings.explode is None else exploded(record, settings.explode, settings.dataset)


def revision(settings: Settings, place: Place) -> str:
    """Return the commit on the hub, or a hash of a local folder's files."""
    return f"{settings.dataset} {_commit(settings.dataset, settings.revision, place)}"


def _load(settings: Settings, place: Place) -> Any:
    from datasets import load_dataset

    folder = _folder(settings.dataset, place)
    try:
        return load_dataset(
            str(folder or settings.dataset),
            settings.config,
            split=settings.split,
            revision=None if folder else _commit(settings.dataset, settings.revision, place).removeprefix("commit:"),
        )
    except Exception as error:  # the loader's errors have no common base; all of them mean the set cannot be had
        raise _refused(settings.dataset, error) from None


def _folder(dataset: str, place: Place) -> Path | None:
    folder = (place.folder / dataset).resolve()
    return folder if folder.is_dir() else None


@lru_cache
def _commit(dataset: str, revision: str | None, place: Place) -> str:
    folder = _folder(dataset, place)
    if folder:
        return f"sha256:{sha256(*sorted(path for path in folder.rglob('*') if path.is_file()))}"
    from huggingface_hub import HfApi

    try:
        return f"commit:{HfApi().dataset_info(dataset, revision=revision).sha}"
    except Exception as error:
        raise _refused(dataset, error) from None


def _refused(dataset: str, error: Exception) -> UserError:
    reason = clause(error)[:160]
    return UserError(
        f"the data set {dataset!r} cannot be had from the hub ({reason}); check its name, config and split and the"
        " network, or set WHETSTONE_DATA to a folder with the data sets"
    )
