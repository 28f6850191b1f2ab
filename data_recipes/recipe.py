"""Recipes: which tasks, from which sources, asked how, judged by whom, how many rows."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_recipes.errors import UserError
from data_recipes.row import Kind, Message, Row, normalise
from data_recipes.sources import Place, load_source
from data_recipes.validation import read_yaml, validated

RECIPES = Path(__file__).parent / "recipes"
_templates = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


class TaskRecipe(BaseModel):
    """One task of a mixture."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    kind: Kind
    """instruction, critique or domain."""
    source: dict[str, Any]
    """The source of the rows: ``type`` names a file of ``data_recipes/sources/``, the other keys are that source's."""
    heldout_source: dict[str, Any] | None = None
    """The source of the held-out rows; absent: they are the first `heldout_rows` distinct questions of `source`."""
    prompt: str | None = None
    """Jinja template of the question over the source's columns; absent: the source yields whole rows."""
    target: str = "{{ answer }}"
    """Jinja template of the SFT target."""
    answer: str = "{{ answer }}"
    """Jinja template of the ground truth that verifiers judge against."""
    working: str | None = None
    """Jinja template of a one-line working towards the answer, which critiques of this task quote."""
    verifiers: list[str] = []
    """Names of files of ``eval/verifiers/``."""
    train_rows: int = Field(0, ge=0)
    """Most rows to train on; 0: all."""
    heldout_rows: int = Field(0, ge=0)
    """Rows kept away from training."""
    licence: str = "unknown"
    """Of the rows; every row carries it."""


class Recipe(BaseModel):
    """A mixture: its tasks by name."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    description: str = ""
    """What the mixture is for."""
    tasks: dict[str, TaskRecipe] = Field(min_length=1)
    """The tasks by name; the name is the unit of losses, rewards and metrics."""


def load_recipe(name: str, beside: Path | None = None) -> tuple[Recipe, Path]:
    """Read a recipe by the name of a shipped one or by its path (relative to the folder `beside`).

    Returns:
        The recipe and the file it came from.

    Raises:
        UserError: there is no such recipe, or it does not hold together.
    """
    shipped = RECIPES / f"{name}.yaml"
    path = shipped if shipped.exists() else (beside or Path.cwd()) / name
    if not path.exists():
        from data_recipes.errors import nearest

        known = [file.stem for file in RECIPES.glob("*.yaml")]
        raise UserError(f"recipe {name!r}: neither a shipped recipe nor a file{nearest(name, known)}")
    return validated(Recipe, read_yaml(path), str(path)), path


def _render(template: str, columns: dict[str, Any], where: str) -> str:
    try:
        return _templates.from_string(template).render(columns).strip()
    except (TemplateError, TypeError, ValueError) as error:
        raise UserError(f"{where}: template {template!r} does not fit the source's columns: {error}") from None


def _row(task: str, recipe: TaskRecipe, revision: str, record: dict[str, Any], where: str) -> Row:
    try:
        if recipe.prompt is None:
            row = Row.model_validate(record)
            if row.task != task and not row.task.startswith(f"{task}/"):
                raise UserError(f"{where}: row {row.id!r} is of task {row.task!r}, not {task!r} or {task}/...")
            return row
        key = record.get("key")
        meta = {"licence": recipe.licence}
        if recipe.working:
            meta["working"] = _render(recipe.working, record, where)
        return Row(
            id=f"{revision.replace(' ', '@')}/{key}",
            task=task,
            kind=recipe.kind,
            messages=[
                Message(role="user", content=_render(recipe.prompt, record, where)),
                Message(role="assistant", content=_render(recipe.target, record, where)),
            ],
            answer=_render(recipe.answer, record, where) if recipe.verifiers else None,
            verifiers=recipe.verifiers,
            meta=meta,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "row"
        raise UserError(f"{where}: {place}: {first['msg']}") from None


def _distinct(task: str, recipe: TaskRecipe, source: dict[str, Any], place: Place, where: str) -> Iterator[Row]:
    module = load_source(str(source.get("type")))
    settings = validated(module.Settings, source, where)
    revision = module.revision(settings, place)
    seen: set[str] = set()
    for record in module.records(settings, place):
        row = _row(task, recipe, revision, record, where)
        question = normalise(row.question)
        if question not in seen:
            seen.add(question)
            yield row


def task_rows(recipe: Recipe, path: Path, task: str, run_dir: Path | None = None) -> tuple[list[Row], list[Row]]:
    """Return the distinct training and held-out rows of one task, in the source's order.

    Raises:
        UserError: the source cannot give the rows the recipe asks for.
    """
    settings = recipe.tasks[task]
    place = Place(path.parent, run_dir)
    where = f"{path}, tasks.{task}"
    rows = _distinct(task, settings, settings.source, place, where)
    if settings.heldout_source is not None:
        heldout = list(_distinct(task, settings, settings.heldout_source, place, where))
    else:
        heldout = list(islice(rows, settings.heldout_rows))
    train = list(islice(rows, settings.train_rows or None))
    if len(heldout) < settings.heldout_rows or len(train) < max(settings.train_rows, 1):
        raise UserError(
            f"{where}: the source gives {len(train)} training and {len(heldout)} held-out distinct questions where"
            f" {settings.train_rows} and {settings.heldout_rows} are asked; lower them or widen the source"
        )
    return train, heldout


def source_revisions(recipe: Recipe, path: Path, run_dir: Path | None = None) -> dict[str, str]:
    """Return, for each task, the version or content hash of its source."""
    place = Place(path.parent, run_dir)
    revisions = {}
    for task, settings in recipe.tasks.items():
        module = load_source(str(settings.source.get("type")))
        source = validated(module.Settings, settings.source, f"{path}, tasks.{task}.source")
        revisions[task] = module.revision(source, place)
    return revisions
