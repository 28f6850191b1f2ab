"""The items of every known benchmark, for mixtures to keep out of training."""

from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.reading import rows_of
from data_recipes.recipe import Recipe, load_recipe
from data_recipes.row import Row
from data_recipes.sources import Place, open_source

SETS = Path(__file__).parent / "benchmarks" / "sets.yaml"


def evaluation_sets() -> Recipe:
    """Return the evaluation sets, described as the tasks of a recipe."""
    return load_recipe(SETS.name, beside=SETS.parent)[0]


def items_of(name: str, full: bool = False) -> list[Row]:
    """Return the items of an evaluation set: of one that comes in halves the held-out half.

    Args:
        full: all items of such a set.

    Raises:
        UserError: there is no such set, or it cannot be had here.
    """
    from data_recipes.errors import nearest

    sets = evaluation_sets()
    if name not in sets.tasks:
        raise UserError(f"unknown evaluation set {name!r}{nearest(name, sets.tasks)}")
    settings = sets.tasks[name]
    source = open_source(
        settings.source, Place(SETS.parent), f"{SETS.name}, tasks.{name}", SETS, ("tasks", name, "source")
    )
    if full:
        source.settings.half = None
    return list(rows_of(name, settings, source))


def protected_rows() -> tuple[list[Row], dict[str, str]]:
    """Return the items of every evaluation set that can be had here, and {set: why not} of the others."""
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for name in evaluation_sets().tasks:
        try:
            rows += items_of(name, full=True)  # a source that declares its half may repeat that half
        except UserError as error:
            missing[name] = str(error)
    return rows, missing
