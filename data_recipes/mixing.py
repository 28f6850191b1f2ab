"""What a recipe's ``mixing`` means for a mixture: draws of each task, and the order they are read in."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from data_recipes.errors import UserError, nearest
from data_recipes.order import Order
from data_recipes.recipe import MOST_ROWS, Mixing, Recipe, TaskRecipe
from data_recipes.weights import allocate, largest_remainder, normalised, scheduled, temperature_weights, unimax


@dataclass(frozen=True)
class Draws:
    """How often the rows of each task are read in an epoch (of a schedule or a changing mixture: in the whole run)."""

    tasks: list[str]
    sizes: list[int]
    tokens: list[int]
    asked: list[float]
    """The share of each task that the recipe asks for, of rows or of tokens as its unit says."""
    stages: list[list[int]]
    """Draws by task in each stage."""

    @property
    def rows(self) -> list[int]:
        """Draws by task in all stages together."""
        return [sum(stage[task] for stage in self.stages) for task in range(len(self.tasks))]

    @property
    def given_tokens(self) -> list[float]:
        """Tokens by task that the draws come to, at each task's mean length."""
        pairs = zip(self.rows, self.tokens, self.sizes, strict=True)
        return [draws * tokens / max(size, 1) for draws, tokens, size in pairs]

    def in_blocks(self, block: int) -> "Draws":
        """Return the draws rounded to whole blocks, at least one for a task that has any: whole batches of one task."""
        return replace(self, stages=[_in_blocks(stage, block) for stage in self.stages]) if block > 1 else self

    def order(self, seed: int, block: int = 1) -> Order:
        """Return the order of these draws; `block` rows of one task follow one another."""
        return Order(tuple(self.sizes), tuple(map(tuple, self.in_blocks(block).stages)), seed, block)


def _in_blocks(draws: list[int], block: int) -> list[int]:
    total = max(round(sum(draws) / block), sum(count > 0 for count in draws))
    least = [int(count > 0) for count in draws]
    return [blocks * block for blocks in allocate(draws, total, least, [total] * len(draws))]


def recipe_of(manifest: dict[str, Any]) -> Recipe:
    """Return the recipe that a mixture was built from, as its manifest holds it."""
    return Recipe.model_validate(manifest["recipe"])


def task_recipe(recipe: Recipe, task: str) -> TaskRecipe:
    """Return the recipe's entry for a task of the mixture: of its own name, or of what comes before the last slash."""
    while task not in recipe.tasks and "/" in task:
        task = task.rsplit("/", 1)[0]
    return recipe.tasks[task]


def check_mixing(recipe: Recipe, where: Callable[..., str]) -> None:
    """Refuse, before anything is built, the mixing that can be seen not to fit the tasks.

    Args:
        where: tells the file and line that keys lead to, for messages.

    Raises:
        UserError: shares of unknown tasks or none for a task, an epoch without length, limits that cannot be met.
    """
    mixing, tasks = recipe.mixing, list(recipe.tasks)
    given = [(("mixing", "shares"), mixing.shares)] if mixing.shares else []
    given += [(("mixing", "schedule", number, "shares"), point.shares) for number, point in enumerate(mixing.schedule)]
    for keys, shares in given:
        for name in shares:
            if not any(_shared(name, task) for task in tasks):
                raise UserError(f"{where(*keys, name)}: unknown task{nearest(name, tasks)}; mend the name")
        missing = [task for task in tasks if not any(_shared(name, task) for name in shares)]
        if missing:
            raise UserError(
                f"{where(*keys)}: shares leave out the task {missing[0]!r}; give it one, 0 to leave it unread"
            )
        if not any(shares.values()):
            raise UserError(f"{where(*keys)}: all shares are zero; give at least one task more")
    if mixing.scheme not in ("union", "proportional") and not mixing.epoch_rows and not mixing.epoch_tokens:
        rows = sum(settings.train_rows for settings in recipe.tasks.values())
        such = f", such as epoch_rows: {rows}" if all(one.train_rows for one in recipe.tasks.values()) else ""
        key = "epoch_tokens" if mixing.scheme == "unimax" and mixing.unit == "tokens" else f"epoch_rows{such}"
        raise UserError(f"{where('mixing')}: {mixing.scheme!r} leaves open how long an epoch is; add {key}")
    # without train_rows a task may have any number of rows
    most = [_most(mixing, settings, settings.train_rows or MOST_ROWS) for settings in recipe.tasks.values()]
    least = [settings.min_draws for settings in recipe.tasks.values()]
    for task, lower, upper in zip(tasks, least, most, strict=True):
        if lower > upper:
            raise UserError(
                f"{where('tasks', task, 'min_draws')}: {lower} draws are more than the {upper} that the task's"
                " train_rows, max_draws and max_epochs allow; lower it or raise them"
            )
    if mixing.epoch_rows and not mixing.schedule:
        read = [
            not given or any(_shared(name, task) and share for name, share in mixing.shares.items()) for task in tasks
        ]
        try:
            allocate([float(one) for one in read], mixing.epoch_rows, least, most)
        except ValueError as error:
            raise UserError(
                f"{where('mixing', 'epoch_rows')}: {error}; change the limits or the length of an epoch"
            ) from None


def _shared(name: str, task: str) -> bool:
    """Tell whether a share given to `name` is one of (part of) `task`: either may be a group's."""
    return name == task or task.startswith(f"{name}/") or name.startswith(f"{task}/")


def draws_of(
    manifest: dict[str, Any], mixing: Mixing | None = None, epochs: float = 1.0, prompts_too: bool = False
) -> Draws:
    """Return the draws of an epoch of a mixture; of one with a schedule, of `epochs` epochs.

    Args:
        manifest: of the mixture.
        mixing: instead of the recipe's.
        prompts_too: also count tasks whose rows have no target (prompts and preferences), which SFT passes over.

    Raises:
        UserError: the shares or limits cannot be met; the sentence says what could.
    """
    recipe = recipe_of(manifest)
    mixing = mixing or recipe.mixing
    every = {task: counts for task, counts in manifest["tasks"].items() if counts["train_rows"]}
    tasks = [
        task for task, counts in every.items() if prompts_too or counts["rows_without_target"] < counts["train_rows"]
    ]
    if not tasks:
        raise UserError("the mixture: no row has a target to train on; give the recipe's tasks targets")
    sizes = [every[task]["train_rows"] for task in tasks]
    tokens = [every[task]["train_tokens"] for task in tasks]
    try:
        asked, stages = _draws(mixing, recipe, tasks, sizes, tokens, list(every), epochs)
        place = {task: number for number, task in enumerate(tasks)}
        return Draws(
            list(every),
            [counts["train_rows"] for counts in every.values()],
            [counts["train_tokens"] for counts in every.values()],
            [asked[place[task]] if task in place else 0.0 for task in every],
            [[stage[place[task]] if task in place else 0 for task in every] for stage in stages],
        )
    except ValueError as error:
        raise UserError(
            f"the recipe's mixing: {error}; change the shares, the limits or the length of an epoch"
        ) from None


def _draws(
    mixing: Mixing,
    recipe: Recipe,
    tasks: list[str],
    sizes: list[int],
    tokens: list[int],
    known: list[str],
    epochs: float,
) -> tuple[list[float], list[list[int]]]:
    """Return the shares asked for, and the draws of each stage."""
    lower = [task_recipe(recipe, task).min_draws for task in tasks]
    upper = [_most(mixing, task_recipe(recipe, task), size) for task, size in zip(tasks, sizes, strict=True)]
    if mixing.scheme == "union":
        if any(least > most for least, most in zip(lower, upper, strict=True)):
            raise ValueError("a task's least rows are more than its most")
        rows = [min(max(size, least), most) for size, least, most in zip(sizes, lower, upper, strict=True)]
        if mixing.critique_share:
            shares = _with_critiques(rows, mixing.critique_share, recipe, tasks)
            kept = sum(
                size for size, task in zip(rows, tasks, strict=True) if task_recipe(recipe, task).kind != "critique"
            )
            total = round(kept / (1 - mixing.critique_share))
            return shares, [allocate(shares, total, lower, upper)]
        return normalised(rows), [rows]
    points = [(point.at, normalised(_by_task(point.shares, tasks, sizes, known))) for point in mixing.schedule]
    means = [count / size for count, size in zip(tokens, sizes, strict=True)]
    asked = scheduled_mean(points) if points else _asked(mixing, tasks, sizes, tokens, known)
    if mixing.critique_share:
        asked = _with_critiques(asked, mixing.critique_share, recipe, tasks)

    def weights(shares: list[float]) -> list[float]:
        return [share / mean for share, mean in zip(shares, means, strict=True)] if mixing.unit == "tokens" else shares

    total = _epoch_rows(mixing, normalised(weights(asked)), sizes, means)
    if not points:
        return asked, [allocate(weights(asked), total, lower, upper)]
    total = max(round(total * epochs), mixing.stages)
    lengths = largest_remainder([1.0] * mixing.stages, total)
    stages = [
        largest_remainder(weights(scheduled(points, (number + 0.5) / mixing.stages)), length)
        for number, length in enumerate(lengths)
    ]
    for task, most, least, given in zip(tasks, upper, lower, map(sum, zip(*stages, strict=True)), strict=True):
        if not least * epochs <= given <= most * epochs:
            raise ValueError(f"the schedule comes to {given} draws of {task}, beyond that task's limits")
    return asked, stages


def _with_critiques(weights: list[float], share: float, recipe: Recipe, tasks: list[str]) -> list[float]:
    """Return shares in which the critique tasks make up `share` together."""
    is_critique = [task_recipe(recipe, task).kind == "critique" for task in tasks]
    critiques = sum(weight for weight, critique in zip(weights, is_critique, strict=True) if critique)
    others = sum(weights) - critiques
    if not critiques or not others:
        raise ValueError(
            f"critique_share needs critique rows and others; these are all {'critiques' if critiques else 'others'}"
        )
    return [
        weight * (share / critiques if critique else (1 - share) / others)
        for weight, critique in zip(weights, is_critique, strict=True)
    ]


def _most(mixing: Mixing, task: TaskRecipe, size: int) -> int:
    overall = mixing.max_epochs or (1.0 if mixing.scheme == "unimax" else None)
    limits = [limit * size for limit in (overall, task.max_epochs) if limit]
    limits += [task.max_draws] if task.max_draws else []
    return math.floor(min(limits, default=1 << 62))


def _asked(mixing: Mixing, tasks: list[str], sizes: list[int], tokens: list[int], known: list[str]) -> list[float]:
    amounts = tokens if mixing.unit == "tokens" else sizes
    if mixing.scheme == "shares":
        return normalised(_by_task(mixing.shares, tasks, sizes, known))
    if mixing.scheme == "temperature":
        return normalised(temperature_weights(amounts, mixing.temperature, mixing.cap))
    if mixing.scheme == "unimax":
        budget = mixing.epoch_tokens if mixing.unit == "tokens" else mixing.epoch_rows
        if budget is None:
            raise ValueError(f"unimax in {mixing.unit} needs epoch_{mixing.unit}")
        return normalised(unimax(amounts, budget, mixing.max_epochs or 1.0))
    return normalised(amounts)


def _by_task(shares: dict[str, float], tasks: list[str], sizes: list[int], known: list[str]) -> list[float]:
    """Return a share a task; one given to ``name`` is divided among the tasks ``name/...`` by their rows."""
    result = [0.0] * len(tasks)
    for name, share in shares.items():
        members = [number for number, task in enumerate(tasks) if task == name or task.startswith(f"{name}/")]
        if not members and any(task == name or task.startswith(f"{name}/") for task in known):
            continue  # its rows have no targets to train on
        if not members:
            raise ValueError(f"shares name the unknown task {name!r}{nearest(name, known)}")
        rows = sum(sizes[number] for number in members)
        for number in members:
            result[number] += share * sizes[number] / rows
    missing = [task for task in tasks if not any(task == name or task.startswith(f"{name}/") for name in shares)]
    if missing:
        raise ValueError(f"shares leave out the task {missing[0]!r}; give it one, 0 to leave it unread")
    return result


def scheduled_mean(points: list[tuple[float, list[float]]]) -> list[float]:
    """Return the shares that a schedule comes to over all of training (midpoint rule, 1,000 steps)."""
    steps = [normalised(scheduled(points, (number + 0.5) / 1000)) for number in range(1000)]
    return [sum(column) / 1000 for column in zip(*steps, strict=True)]


def _epoch_rows(mixing: Mixing, shares: list[float], sizes: list[int], means: list[float]) -> int:
    if mixing.epoch_rows:
        return mixing.epoch_rows
    if mixing.epoch_tokens:
        mean = sum(share * mean for share, mean in zip(shares, means, strict=True))
        return max(1, round(mixing.epoch_tokens / mean))
    if mixing.scheme == "proportional":
        return sum(sizes)
    drawn = [(size, share) for size, share in zip(sizes, shares, strict=True) if share > 0]
    once = math.floor(min(size / share for size, share in drawn))
    every = math.ceil(max(size / share for size, share in drawn))
    raise ValueError(
        f"the scheme {mixing.scheme!r} leaves open how long an epoch is: epoch_rows: {once} repeats no row,"
        f" epoch_rows: {every} reads every row at least once"
    )
