"""Where rows come from: one file a source type, found by its name.

A source module ``data_recipes/sources/NAME.py`` is reached from a recipe as ``source: {type: NAME, ...}``. It defines::

    class Settings(SourceSettings): ...                     # the keys it takes, validated
    def records(settings, place) -> Iterator[dict]: ...     # in a fixed order; each with a stable "key"
    def revision(settings, place) -> str: ...               # what the manifest pins: a version or a content hash

A record is a mapping of columns: the recipe's templates turn it into a row, or its layout is recognised.
"""

import importlib
import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from data_recipes.errors import UserError, nearest
from data_recipes.validation import clause, line_of, one_line, validated

Half = Literal["train", "heldout"]


class SourceSettings(BaseModel):
    """Settings every source shares; a source adds its own."""

    model_config = ConfigDict(extra="forbid")
    type: str
    half: Half | None = None
    """Read only this half of an evaluation set, divided by a hash of the question (`data_recipes.halves`)."""


@dataclass(frozen=True)
class Place:
    """Where a recipe is being read: paths in it are relative to `folder`, ``{run}`` and ``{data}`` in them are
    folders."""

    folder: Path
    run_dir: Path | None = None

    @property
    def data_dir(self) -> Path | None:
        """``WHETSTONE_DATA``: a folder with the data sets that recipes otherwise take from the hub."""
        given = os.environ.get("WHETSTONE_DATA")
        return Path(given).absolute() if given else None

    def resolve(self, path: str) -> Path:
        """Return the local file a recipe's path or address means; an address is downloaded once (datasets' cache).

        Raises:
            UserError: the path says ``{run}`` but no run is under way, ``{data}`` but WHETSTONE_DATA is not set, or the
                address cannot be reached.
        """
        if path.startswith(("https://", "http://")):
            return _downloaded(path)
        if "{run}" in path:
            if self.run_dir is None:
                raise UserError(f"{path}: this recipe reads a run's own files; build it with 'whetstone run FILE'")
            path = path.replace("{run}", str(self.run_dir))
        if "{data}" in path:
            if self.data_dir is None:
                raise UserError(f"{path}: WHETSTONE_DATA is not set; point it at the folder that holds the data sets")
            path = path.replace("{data}", str(self.data_dir))
        try:
            return (self.folder / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, links that lead in a circle
            raise UserError(f"{path!r:.80}: not the path of a file ({error}); mend the path") from None


def _downloaded(address: str) -> Path:
    from datasets import DownloadConfig, DownloadManager

    try:
        return Path(DownloadManager(download_config=DownloadConfig(max_retries=2)).download(address))
    except (OSError, ValueError) as error:
        reason = clause(error)[:160]
        raise UserError(
            f"{address} cannot be had ({reason}); check the network, or set WHETSTONE_DATA to a folder with the data"
            " sets"
        ) from None


@dataclass(frozen=True)
class Source:
    """A source's settings and the place they are read from."""

    settings: SourceSettings
    place: Place
    where: str
    """The recipe's file, line and key, for messages."""
    file: Path | None = None
    """The recipe."""
    at: tuple[Any, ...] = ()
    """The keys that lead to the source in the recipe."""

    @property
    def module(self) -> ModuleType:
        """The source's code (by its name, so that a source can be sent to another process)."""
        return importlib.import_module(f"{__name__}.{self.settings.type}")

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records, each with a ``key``."""
        with self._named():
            yield from self.module.records(self.settings, self.place)

    def revision(self) -> str:
        """Return what the manifest pins."""
        with self._named():
            return self.module.revision(self.settings, self.place)

    def where_of(self, key: str) -> str:
        """Return the recipe's file, line and key for another key of the source's task, such as its ``prompt``."""
        if key == "source" or self.file is None:
            return self.where if key == "source" else f"{self.where}: {key}"
        keys = (*self.at[:2], *key.split("."))
        return f"{self.file}, {'.'.join(keys)}{line_of(self.file, keys)}"

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in whatever goes wrong which source of which recipe it is; source modules need not know."""
        try:
            yield
        except UserError as error:
            raise UserError(one_line(f"{self.where}: {error}")) from None
        except OSError as error:
            raise UserError(one_line(f"{self.where}: cannot be read ({str(error):.200}); check the file")) from None


def open_source(given: dict[str, Any], place: Place, where: str, file: Path | None = None, at: tuple = ()) -> Source:
    """Return the source a recipe describes; its ``offline`` variant where WHETSTONE_DATA is set.

    Raises:
        UserError: there is no such source, its settings do not fit, or it is a test split that nothing may train on.
    """
    given = dict(given)
    offline = given.pop("offline", None)
    if offline is not None:
        at = (*at, "offline") if place.data_dir else at
        if not isinstance(offline, dict):
            raise UserError(
                f"{where}{line_of(file, at)}: offline: not a source; write one, such as {{type: files, path: ...}}"
            )
        given = dict(offline) if place.data_dir else given
    if "type" not in given:
        raise UserError(f"{where}{line_of(file, at)}: the key 'type' is missing; add it, such as type: files")
    name = str(given["type"])
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"{where}{line_of(file, (*at, 'type'))}: unknown source type {name!r}{nearest(name, known)}")
    module = importlib.import_module(f"{__name__}.{name}")
    where_exactly = f"{where}{line_of(file, at)}"
    settings = validated(module.Settings, given, where, file=file, at=at)
    return Source(settings, place, where_exactly, file, at)
