"""Records from a function of yours: it yields mappings, each with a stable ``key``.

The function is imported and run, so a recipe with this source is as trustworthy as the code it names.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import sha256
from data_recipes.sources import Place, SourceSettings
from data_recipes.validation import clause


class Settings(SourceSettings):
    """``function`` is ``module:name``, the module importable or beside the recipe; ``arguments`` are its keywords."""

    function: str
    arguments: dict[str, Any] = {}


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield what the function yields."""
    function, number = _function(settings, place), 0
    try:
        for record in function(**settings.arguments):
            if not isinstance(record, dict) or "key" not in record:
                raise UserError(
                    f"{settings.function}: record {number} is not a mapping with a 'key'; yield dicts with a stable key"
                )
            yield record
            number += 1
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{settings.function}: record {number}: {_raised(error)}; mend the function or its arguments"
        ) from None


def revision(settings: Settings, place: Place) -> str:
    """Return the function's name and a hash of its module's source."""
    try:
        path = inspect.getsourcefile(_function(settings, place))
    except TypeError:  # it is built in
        path = None
    if path is None:
        raise UserError(f"{settings.function}: has no source file to pin; give a function written in Python")
    return f"{settings.function} sha256:{sha256(Path(path))}"


def _raised(error: Exception) -> str:
    """Return what was raised, and the file and line of the user's code it came from."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    said = error.msg if isinstance(error, SyntaxError) else error
    if isinstance(error, SyntaxError):
        frames.insert(0, (error.filename or "<unknown>", error.lineno))
    ours = (__file__, importlib.__file__)
    at = next((f" at {name}, line {line}" for name, line in frames if name not in ours and name[0] != "<"), "")
    return f"{type(error).__name__}{at} ({clause(said)})"


def _function(settings: Settings, place: Place) -> Any:
    module_name, _, name = settings.function.partition(":")
    sys.path.insert(0, str(place.folder))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the module
        raise UserError(
            f"{settings.function}: the module cannot be imported: {_raised(error)}; mend it or the source's 'function'"
        ) from None
    finally:
        sys.path.remove(str(place.folder))
    beside = place.folder / f"{module_name}.py"
    if beside.exists() and not (module.__dict__.get("__file__") and beside.samefile(module.__file__)):
        raise UserError(f"{settings.function}: Python knows another module of this name already; rename {beside.name}")
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{settings.function}: no such function; write it as module:name")
    return function
