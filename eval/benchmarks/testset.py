"""An evaluation set of ``sets.yaml`` whose answers can be judged: gsm8k, mmlu_pro, svamp, mawps, pubmedqa, medqa, ...

Of a set that the mixture read the training half of, only the held-out half is asked, and a score on all of it refused.
"""

import hashlib
from pathlib import Path

from pydantic import Field

from data_recipes.errors import UserError
from data_recipes.evaluation_sets import refuse_full_set
from data_recipes.files import read_json
from data_recipes.halves import half_of
from data_recipes.reading import question_of
from data_recipes.row import Row
from data_recipes.store import MANIFEST
from eval.benchmarks import BenchmarkSettings
from eval.protected import items_of


class Settings(BenchmarkSettings):
    """``set`` is a name in sets.yaml; ``items`` bounds how many are asked, spread over the set (0: all)."""

    set: str
    items: int = Field(0, ge=0)
    full: bool = False
    """Ask the whole set, for an official score; refused where the model was trained on half of it."""


def items(settings: Settings, mixture: Path) -> list[Row]:
    """Return the set's items.

    Raises:
        UserError: there is no such set, it cannot be judged, or the model was trained on part of what is asked.
    """
    trained_on = read_json(mixture / MANIFEST)["halves_trained_on"]
    if settings.full:
        refuse_full_set(settings.set, trained_on)
    rows = items_of(settings.set, settings.full)
    if not any(row.verifiers for row in rows):
        raise UserError(f"{settings.set}: nothing judges these items yet; choose a set of sets.yaml with verifiers")
    if settings.set in trained_on:
        rows = [row for row in rows if half_of(question_of(row)) == "heldout"]
    if settings.items:
        rows = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())[: settings.items]
    return rows
