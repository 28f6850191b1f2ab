"""Recipes: which tasks, from which sources, asked how, judged by whom, mixed in which shares, cleaned of what."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from data_recipes.errors import UserError, nearest
from data_recipes.rendering import check_expression, check_template
from data_recipes.row import Kind
from data_recipes.validation import line_of, read_yaml, validated

RECIPES = Path(__file__).parent / "recipes"
MOST_ROWS = 1 << 48
"""Beyond is a slip of the keyboard."""
Template = Annotated[str, AfterValidator(check_template)]
Expression = Annotated[str, AfterValidator(check_expression)]


def _language(code: str) -> str:
    if not re.fullmatch("[a-z]{2}", code):
        raise ValueError(f"{code!r} is no ISO 639-1 code; give two small letters, such as en")
    return code


class Part(BaseModel):
    """A part of a recipe: unknown keys are refused and every field's docstring is its documentation."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Choices(Part):
    """Options of a multiple-choice question; templates then see ``choices`` (lettered lines), ``letter`` and
    ``choice``."""

    options: Expression
    """Jinja expression of the list of options (or of a mapping from letters), such as ``[opa, opb, opc, opd]``."""
    answer: Expression
    """Jinja expression of the right one: its index from 0, its letter, or its text."""
    shuffle: int | None = None
    """Seed that shuffles the options of every row, the answer following; rows whose options refer to one another
    ("all of the above") keep their order. Absent: the source's order."""


class Example(Part):
    """A worked example of an instruction."""

    input: str
    output: str
    explanation: str = ""
    """Why the output is right."""


class Instruction(Part):
    """The In-BoXBART form (2204.07600): definition, positive examples with explanations, then the instance."""

    definition: str
    """What the task asks, in words."""
    examples: list[Example] = []
    """Positive examples, shown before the instance."""


class TaskRecipe(Part):
    """One task of a mixture."""

    kind: Kind
    """instruction, critique or domain."""
    source: dict[str, Any]
    """Where the rows come from: ``type`` names a file of ``data_recipes/sources/``, the other keys are that source's.
    ``offline`` holds the source to read instead where ``WHETSTONE_DATA`` is set, ``half`` the half of an evaluation
    set."""
    heldout_source: dict[str, Any] | None = None
    """The source of the held-out rows; absent: they are the first `heldout_rows` distinct questions of `source`."""
    only: Expression | None = None
    """Jinja expression; records for which it is false are passed over."""
    prompt: Template | Annotated[list[Template], Field(min_length=1)] | None = None
    """Jinja template of the question over the source's columns; of several, a row's id picks one. Absent: the columns
    are recognised (messages, ShareGPT, Alpaca, prompt/completion, preference, whole rows)."""
    instruction: Instruction | None = None
    """Puts a definition and worked examples around the prompt."""
    choices: Choices | None = None
    """Options of a multiple-choice question."""
    target: Template = "{{ answer }}"
    """Jinja template of the SFT target."""
    answer: Template = "{{ answer }}"
    """Jinja template of the ground truth that verifiers judge against."""
    question: Template | None = None
    """Jinja template of the question alone, where the prompt holds more: halves, duplicates and decontamination go by
    it. Absent: the prompt."""
    group: Template | None = None
    """Jinja template; rows of one group (paraphrases, questions on one text) are held out together."""
    working: Template | None = None
    """Jinja template of a one-line working towards the answer, which critiques of this task quote."""
    verifiers: list[str] = []
    """Names of files of ``eval/verifiers/``."""
    meta: dict[str, Template] = {}
    """More of what a row knows, by name: Jinja templates; one that comes to nothing is left out. Of a critique:
    ``response``, ``first_wrong_step``, ``gold`` and ``gold_verifiers`` (by which a revision is judged)."""
    train_rows: int = Field(0, ge=0, le=MOST_ROWS)
    """Most rows to train on; 0: all."""
    heldout_rows: int = Field(0, ge=0, le=MOST_ROWS)
    """Rows kept away from training."""
    heldout_by: Literal["order", "hash"] = "order"
    """Which rows those are: the first of the source, or those of the smallest hash, spread over all of it (which means
    reading all of it first)."""
    min_draws: int = Field(0, ge=0)
    """Least readings of this task's rows an epoch."""
    max_draws: int | None = Field(None, ge=1)
    """Most readings of this task's rows an epoch."""
    max_epochs: float | None = Field(None, gt=0)
    """Most times a row is read an epoch, on average."""
    licence: str = "unknown"
    """Of the rows; every row carries it."""
    flaws: str = ""
    """What is known to be wrong with the rows, for the data card."""
    decontaminate: Literal["near", "exact", "none"] | None = None
    """Instead of the recipe's: exact suits questions made from a template, which all look alike."""


class SharePoint(Part):
    """Shares at a moment of training."""

    at: float = Field(ge=0, le=1)
    """Fraction of training: 0 is its start, 1 its end."""
    shares: dict[str, float]
    """Shares by task."""


class Adaptive(Part):
    """Shares that follow the tasks' losses, changed at window boundaries only (Online Data Mixing, 2312.02406)."""

    window_steps: int = Field(50, ge=1)
    """Optimiser steps between two changes."""
    smoothing: float = Field(0.9, ge=0, lt=1)
    """How much of a task's old reward estimate stays at each change."""


class Mixing(Part):
    """How much of each task an epoch holds. The default reads every row once an epoch: union without replacement."""

    scheme: Literal["union", "shares", "proportional", "temperature", "unimax"] = "union"
    """union: every row once. shares: as `shares` says. proportional: by rows. temperature: by min(rows, cap)^(1/T).
    unimax: equally, but no task more than `max_epochs` times."""
    shares: dict[str, float] = {}
    """For `shares`: a number for every task, in any unit; ``critique`` stands for all ``critique/...`` together."""
    critique_share: float | None = Field(None, gt=0, lt=1)
    """The part of an epoch that tasks of kind critique make up together; the scheme divides it, and the rest, among the
    tasks. A union reads the other tasks' rows once and as many critiques as that takes."""
    unit: Literal["rows", "tokens"] = "rows"
    """What the shares are shares of."""
    epoch_rows: int | None = Field(None, ge=1)
    """Rows read an epoch; needed by every scheme but union (or give `epoch_tokens`)."""
    epoch_tokens: int | None = Field(None, ge=1)
    """Tokens read an epoch, about."""
    temperature: float = Field(2.0, gt=0)
    """T of the temperature scheme: 1 is proportional, large is equal."""
    cap: int | None = Field(None, ge=1)
    """For the temperature scheme: a task's rows count as at most this many."""
    max_epochs: float | None = Field(None, gt=0)
    """Most times any row is read an epoch, on average; for unimax the N of the paper (there 1 if absent)."""
    schedule: list[SharePoint] = []
    """Shares that change over training, straight between the points (easy to hard, synthetic to real)."""
    stages: int = Field(20, ge=2)
    """Steps in which a schedule is followed."""
    task_batches: bool = False
    """Every batch (over all processes) holds rows of one task."""
    adaptive: Adaptive | None = None
    """Shares that follow the tasks' losses; absent: they are fixed."""

    @model_validator(mode="after")
    def _agrees(self) -> "Mixing":
        budget = self.epoch_rows or self.epoch_tokens
        if self.epoch_rows and self.epoch_tokens:
            raise ValueError("both epoch_rows and epoch_tokens are given; give one of them")
        if self.scheme == "unimax" and budget and not (self.epoch_tokens if self.unit == "tokens" else self.epoch_rows):
            raise ValueError(f"unimax in {self.unit} needs epoch_{self.unit}; give it instead")
        if self.scheme == "union" and budget:
            raise ValueError("union reads every row once an epoch; choose proportional for an epoch of another length")
        if (self.scheme == "shares") != bool(self.shares or self.schedule):
            raise ValueError("the scheme 'shares' needs shares or a schedule, and they need it; give both or neither")
        if self.critique_share and self.scheme == "shares":
            raise ValueError("both critique_share and shares say how much critique there is; give one of them")
        if self.shares and self.schedule:
            raise ValueError("both shares and a schedule are given; give one of them")
        if self.schedule and [point.at for point in self.schedule] != sorted({point.at for point in self.schedule}):
            raise ValueError("schedule: the points' `at` have to rise; sort them and give each `at` once")
        for shares in [self.shares, *(point.shares for point in self.schedule)]:
            if any(share < 0 for share in shares.values()):
                raise ValueError("shares cannot be negative; give 0 to leave a task unread")
        if self.adaptive and self.schedule:
            raise ValueError("shares follow a schedule or the losses, not both; remove schedule or adaptive")
        return self


class Quality(Part):
    """Rows that do not hold together; each limit is off where it is absent."""

    min_target_characters: int = Field(1, ge=0)
    """Shortest target."""
    max_target_characters: int | None = Field(None, ge=1)
    """Longest target."""
    max_repeated_lines: float | None = Field(None, ge=0, le=1)
    """Most of a target's lines that may repeat an earlier line."""
    max_symbols: float | None = Field(None, ge=0, le=1)
    """Most of a target's characters that may be neither letters, digits nor white space."""

    @model_validator(mode="after")
    def _agrees(self) -> "Quality":
        if self.max_target_characters is not None and self.max_target_characters < self.min_target_characters:
            raise ValueError("max_target_characters is below min_target_characters; raise the one or lower the other")
        return self


class NearDuplicates(Part):
    """Near duplicates among training rows: MinHash over word triples (rensa), then the numbers have to agree."""

    threshold: float = Field(0.8, gt=0, lt=1)
    """Estimated Jaccard similarity from which the later row is removed."""
    permutations: int = Field(128, ge=16)
    """Length of a signature."""


class Cleaning(Part):
    """What is removed while the mixture is built, and reported row by row."""

    duplicates: bool = True
    """Remove rows whose question repeats an earlier one of the task, or whose whole text repeats an earlier row."""
    near_duplicates: NearDuplicates | None = None
    """Also remove near duplicates of earlier rows."""
    quality: Quality | None = None
    """Remove rows beyond these limits."""
    min_tokens: int = Field(0, ge=0)
    """Shortest row, in tokens."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest row, in tokens."""
    languages: list[Annotated[str, AfterValidator(_language)]] = []
    """ISO 639-1 codes of the languages to keep (py3langid's guess from the whole row); empty: all."""
    decontaminate: Literal["near", "exact", "none"] = "near"
    """Remove rows that hold a held-out question or a benchmark's item: lightly reworded too (near), or word for
    word."""
    protect: Literal["all", "heldout"] = "all"
    """Against which items: those of every known benchmark and the mixture's own held-out rows, or only these."""

    @model_validator(mode="after")
    def _agrees(self) -> "Cleaning":
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError("max_tokens is below min_tokens; raise the one or lower the other")
        return self


class Recipe(Part):
    """A mixture: its tasks by name."""

    description: str = ""
    """What the mixture is for."""
    include: list[str] = []
    """Other recipes whose tasks belong to this one, by name or path; their mixing and cleaning stay behind."""
    tasks: dict[str, TaskRecipe] = {}
    """The tasks by name; the name is the unit of losses, rewards and metrics."""
    mixing: Mixing = Mixing()
    """How much of each task an epoch holds."""
    cleaning: Cleaning = Cleaning()
    """What is removed."""

    _paths: dict[str, Path] = PrivateAttr(default_factory=dict)

    def path_of(self, task: str) -> Path:
        """Return the file a task was written in: paths in its source are relative to that file's folder."""
        return self._paths[task]

    def decontamination_of(self, task: str) -> str:
        """Return how a task is decontaminated: its own word, else the recipe's."""
        return self.tasks[task].decontaminate or self.cleaning.decontaminate

    @property
    def protects_benchmarks(self) -> bool:
        """Whether benchmarks' items are kept out of any task."""
        return self.cleaning.protect == "all" and any(self.decontamination_of(task) != "none" for task in self.tasks)


def load_recipe(name: str, beside: Path | None = None) -> tuple[Recipe, Path]:
    """Read a recipe by the name of a shipped one or by its path (relative to the folder `beside`).

    Returns:
        The recipe, the tasks of the recipes it includes among its own, and the file it came from.

    Raises:
        UserError: there is no such recipe, or it does not hold together.
    """
    path = _find(name, beside or Path.cwd(), "")
    return _load(path, ()), path


def _find(name: str, folder: Path, where: str) -> Path:
    shipped = RECIPES / f"{name}.yaml"
    path = shipped if shipped.exists() else folder / name
    if not path.is_file():
        known = [file.stem for file in RECIPES.glob("*.yaml")]
        raise UserError(
            f"{where}recipe {name!r}: neither a shipped recipe nor a file{nearest(name, known)}; mend the name"
        )
    return path


def _load(path: Path, includers: tuple[Path, ...]) -> Recipe:
    recipe = validated(Recipe, read_yaml(path), str(path), file=path)
    recipe._paths = dict.fromkeys(recipe.tasks, path)
    included: dict[str, TaskRecipe] = {}
    for number, name in enumerate(recipe.include):
        where = f"{path}{line_of(path, ('include', number))}: include: "
        other_path = _find(name, path.parent, where)
        if other_path.resolve() in {one.resolve() for one in (path, *includers)}:
            raise UserError(f"{where}{name!r} is this recipe or includes it in turn; leave one of the two out")
        other = _load(other_path, (*includers, path))
        for task, settings in other.tasks.items():
            if included.get(task, settings) != settings:
                raise UserError(f"{where}{name!r} has another task called {task!r}; rename one of the two")
            included.setdefault(task, settings)
            recipe._paths.setdefault(task, other.path_of(task))
    recipe.tasks = {**included, **recipe.tasks}
    recipe.include = []
    where = f"{path}{line_of(path, ('tasks',))}"
    if not recipe.tasks:
        raise UserError(f"{where}: the recipe has no tasks; give it at least one under 'tasks', or an include")
    for task in recipe.tasks:
        if not task.strip() or not task.isprintable():
            raise UserError(f"{where}: {task!r} cannot be a task's name; give it one in letters")
    _check_mixing(recipe, path)
    return recipe


def _check_mixing(recipe: Recipe, path: Path) -> None:
    from data_recipes.mixing import check_mixing

    check_mixing(recipe, lambda *keys: f"{path}, {'.'.join(map(str, keys))}{line_of(path, keys)}")
