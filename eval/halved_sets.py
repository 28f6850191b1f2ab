"""The records of an evaluation set that come in halves, as far as a model may be asked about them."""

from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.evaluation_sets import SETS, refuse_full_set
from data_recipes.halves import half_of
from data_recipes.sources import Place, open_source
from eval.benchmarks import halves_trained_on
from eval.protected import SETS as FILE
from eval.protected import evaluation_sets


def records_of(
    name: str, question: str, mixture: Path | None, full: bool, source: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the set's records, each with its ``key``: all, or the held-out half where the mixture read the other.

    A set that repeats questions of another one is halved as well where the mixture read a half of that one.

    Args:
        name: an evaluation set with halves.
        question: the column of the question, whose hash decides the half.
        full: all records, for an official score.
        source: another source of the same set than that of ``sets.yaml``.

    Raises:
        UserError: the set cannot be had, lacks the column, or all of it is asked of a model trained on half of it.
    """
    of_name = next(one for one in SETS if one.name == name)
    trained_on = {name, *of_name.repeats}.intersection(halves_trained_on(mixture))
    if full:
        for trained in sorted(trained_on):
            refuse_full_set(trained, trained_on)
    given = source or evaluation_sets().tasks[name].source
    where = name if source else f"{FILE.name}, tasks.{name}"
    opened = open_source(given, Place(FILE.parent), where, None if source else FILE, ("tasks", name, "source"))
    opened.settings.half = None
    records = []
    for record in opened.records():
        if not isinstance(record.get(question), str):
            raise UserError(f"{where}: record {record['key']}: no text in the column {question!r}; mend that record")
        if not trained_on or half_of(record[question]) == "heldout":
            records.append(record)
    return records


def required(record: dict[str, Any], where: str, **types: type | tuple[type, ...]) -> list[Any]:
    """Return the named columns of a record, checked to be of the given types.

    Raises:
        UserError: one is missing or of another type.
    """
    for name, kind in types.items():
        if not isinstance(record.get(name), kind):
            raise UserError(
                f"{where}: record {record['key']}: column {name!r} is {record.get(name)!r:.60}; mend that record, or"
                " give the file as published"
            )
    return [record[name] for name in types]
