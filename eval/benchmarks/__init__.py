"""Benchmarks: one file each, found by its name.

A benchmark module ``eval/benchmarks/NAME.py`` is named in an experiment file as ``- {type: NAME, ...}`` under
``eval.benchmarks``. It defines::

    class Settings(BenchmarkSettings): ...                  # the keys it takes, validated
    def items(settings, mixture) -> list[Row]: ...          # rows with a prompt, an answer and verifiers

Extraction and scoring belong to the rows' verifiers. A benchmark reads its items through `data_recipes.sources`.
"""

import importlib
import pkgutil
from types import ModuleType

from pydantic import BaseModel, ConfigDict, Field

from data_recipes.errors import UserError, nearest


class BenchmarkSettings(BaseModel):
    """Settings every benchmark shares; a benchmark adds its own."""

    model_config = ConfigDict(extra="forbid")
    type: str
    max_tokens: int = Field(48, ge=1)
    """Longest completion, in tokens."""


def load_benchmark(name: str) -> ModuleType:
    """Import the benchmark called `name`.

    Raises:
        UserError: there is no such benchmark.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"unknown benchmark {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name}")
