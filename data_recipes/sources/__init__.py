"""Where rows come from: one file a source type, found by its name.

A source module ``data_recipes/sources/NAME.py`` is reached from a recipe as ``source: {type: NAME, ...}``. It defines::

    class Settings(SourceSettings): ...                     # the keys it takes, validated
    def records(settings, place) -> Iterator[dict]: ...     # in a fixed order; each with a stable "key"
    def revision(settings, place) -> str: ...               # what the manifest pins: a version or a content hash

A record is either columns for the recipe's templates or, where the recipe gives no template, a whole row.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ConfigDict

from data_recipes.errors import UserError, nearest


class SourceSettings(BaseModel):
    """Settings every source shares; a source adds its own."""

    model_config = ConfigDict(extra="forbid")
    type: str


@dataclass(frozen=True)
class Place:
    """Where a recipe is being read: paths in it are relative to `folder`, and ``{run}`` in them is `run_dir`."""

    folder: Path
    run_dir: Path | None = None

    def resolve(self, path: str) -> Path:
        """Return the file a recipe's path means.

        Raises:
            UserError: the path says ``{run}`` but no run is under way.
        """
        if "{run}" in path:
            if self.run_dir is None:
                raise UserError(f"{path}: this recipe reads a run's own files; build it with 'whetstone run FILE'")
            return Path(path.replace("{run}", str(self.run_dir)))
        return (self.folder / path).resolve()


def load_source(name: str) -> ModuleType:
    """Import the source module called `name`.

    Raises:
        UserError: there is no such source.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"unknown source type {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name}")
