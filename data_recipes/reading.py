"""The rows of a recipe's tasks, in their sources' order: which are held out, which are left to train on."""

import hashlib
import re
from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice
from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.evaluation_sets import refuse_test_split
from data_recipes.halves import half_of
from data_recipes.recipe import Recipe, TaskRecipe
from data_recipes.rendering import row_of, wanted
from data_recipes.row import Row, normalise
from data_recipes.sources import Place, Source, open_source


def sources_of(recipe: Recipe, task: str, run_dir: Path | None = None) -> tuple[Source, Source | None]:
    """Return the opened source of a task's training rows, and that of its held-out rows where they have their own.

    Raises:
        UserError: a source does not hold together, or the training rows are an evaluation set's.
    """
    settings, path = recipe.tasks[task], recipe.path_of(task)
    place = Place(path.parent, run_dir)
    opened = []
    for name, given in (("source", settings.source), ("heldout_source", settings.heldout_source)):
        where = f"{path}, tasks.{task}.{name}"
        at = ("tasks", task, name)
        opened.append(None if given is None else open_source(given, place, where, file=path, at=at))
    refuse_test_split(opened[0])
    return opened[0], opened[1]


def id_prefix(source: Source) -> str:
    """Return what the ids of a source's rows begin with: its name and revision, hashes shortened."""
    return re.sub(r"(?:sha256|commit):(\w{12})\w*", r"\1", source.revision()).replace(" ", "@")


def rows_of(task: str, settings: TaskRecipe, source: Source) -> Iterator[Row]:
    """Yield the rows of a source's records that the task wants, of the half it asks for."""
    prefix = id_prefix(source)
    for record in source.records():
        row = made_of(task, settings, source, prefix, record)
        if row is not None:
            yield row


def made_of(task: str, settings: TaskRecipe, source: Source, prefix: str, record: dict) -> Row | None:
    """Return a record's row, or None where the task passes it over."""
    if not wanted(settings, record, source.where_of):
        return None
    row = row_of(task, settings, prefix, record, source.where_of)
    half = source.settings.half
    return row if half is None or half_of(question_of(row)) == half else None


def question_of(row: Row) -> str:
    """Return the question itself: for a critique the one whose answer is criticised, else the last user turn."""
    return row.meta.get("question") or row.question


def prompt_of(row: Row) -> str:
    """Return all that is asked: every turn before the target (of a preference without any, the answers)."""
    turns = [turn["content"] for turn in row.prompt] or [turn.content for turn in (row.chosen or [])]
    return "\n".join(turns)


def group_of(row: Row) -> str:
    """Return what a row is held out together with: its group, else its question, of a conversation all of it."""
    if "group" in row.meta:
        return f"group {row.meta['group']}"
    return normalise(row.meta.get("question") or prompt_of(row))


def distinct(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the first row of every prompt."""
    seen: set[str] = set()
    for row in rows:
        prompt = normalise(prompt_of(row))
        if prompt not in seen:
            seen.add(prompt)
            yield row


def held_out(recipe: Recipe, task: str, sources: tuple[Source, Source | None]) -> list[Row]:
    """Return a task's held-out rows: whole groups in the source's order until there are as many as asked.

    Raises:
        UserError: the source holds fewer.
    """
    settings = recipe.tasks[task]
    source, heldout_source = sources
    if heldout_source is not None:
        rows = list(distinct(rows_of(task, settings, heldout_source)))
        if not rows:
            raise UserError(f"{heldout_source.where}: the source gives no held-out question; mend it or leave it out")
        return rows
    if not settings.heldout_rows:
        return []
    kept: list[Row] = []
    groups: set[str] = set()
    rows = distinct(rows_of(task, settings, source))
    if settings.heldout_by == "hash":
        rows = iter(nsmallest(settings.heldout_rows, rows, key=lambda row: _hash(group_of(row))))
    for row in rows:
        if len(kept) < settings.heldout_rows:
            groups.add(group_of(row))
            kept.append(row)
        elif settings.group is None:
            break
        elif group_of(row) in groups:
            kept.append(row)
    if len(kept) < settings.heldout_rows:
        raise too_few(source, settings, 0, len(kept))
    return kept


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def too_few(source: Source, settings: TaskRecipe, train: int, heldout: int) -> UserError:
    """Return the error of a source that cannot give what its task asks."""
    if not train and not heldout:
        passed = " that 'only' lets in" if settings.only else ""
        name = source.revision().rsplit(" ", 1)[0]
        return UserError(f"{source.where}: {name} gives no row{passed}; mend it or take another source")
    return UserError(
        f"{source.where}: the source gives {train} training and {heldout} held-out distinct questions where"
        f" {max(settings.train_rows, 1)} and {settings.heldout_rows} are asked; lower them or widen the source"
    )


def task_rows(recipe: Recipe, task: str, run_dir: Path | None = None) -> tuple[list[Row], list[Row]]:
    """Return the distinct training and held-out rows of one task, in the source's order and before any cleaning.

    Raises:
        UserError: the source cannot give the rows the recipe asks for.
    """
    settings = recipe.tasks[task]
    sources = sources_of(recipe, task, run_dir)
    heldout = held_out(recipe, task, sources)
    groups = {group_of(row) for row in heldout}
    rows = (row for row in distinct(rows_of(task, settings, sources[0])) if group_of(row) not in groups)
    train = list(islice(rows, settings.train_rows or None))
    if len(train) < max(settings.train_rows, 1):
        raise too_few(sources[0], settings, len(train), len(heldout))
    return train, heldout
