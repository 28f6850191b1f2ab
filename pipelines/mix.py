"""The mix stage: the experiment's recipe becomes the run's mixture folder. And `whetstone mix build`, `show`, ..."""

import json
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.mixing import Draws, draws_of, recipe_of
from data_recipes.mixture import build_mixture, prepare
from data_recipes.progress import console, say
from data_recipes.recipe import Recipe, load_recipe
from data_recipes.row import Row
from data_recipes.store import REMOVED, Mixture
from eval.models import resolve_model
from pipelines.experiment import Experiment
from pipelines.record import locked
from pipelines.tokens import ChatTokeniser

EXAMPLES = 5
"""Removed rows that are shown."""


def mix(experiment: Experiment) -> None:
    """Build ``mixture/`` in the run folder and print what is in it.

    Raises:
        UserError: the recipe cannot be built.
    """
    recipe, _ = experiment.mixture_recipe
    build(recipe, experiment.run_dir / "mixture", experiment.model, experiment.seed, run_dir=experiment.run_dir)


def build(
    recipe: Recipe, folder: Path, model: str, seed: int, workers: int | None = None, run_dir: Path | None = None
) -> None:
    """Build a mixture with every known benchmark's items protected, and show it.

    Args:
        model: whose tokenizer and chat template the rows are for.
        workers: processes; absent: as many as there are cores.

    Raises:
        UserError: the recipe cannot be built.
    """
    protected, missing = _protected(recipe)
    build_mixture(
        recipe,
        folder,
        seed=seed,
        tokenise=ChatTokeniser(resolve_model(model)),
        run_dir=run_dir,
        protected=protected,
        missing=missing,
        workers=workers or os.cpu_count() or 1,
    )
    show(folder)


def _protected(recipe: Recipe) -> tuple[list[Row], dict[str, str]]:
    if not recipe.protects_benchmarks:
        return [], {}
    from eval.protected import protected_rows

    rows, missing = protected_rows()
    if missing:
        first, why = next(iter(missing.items()))
        say(f"  not protected, because they cannot be had here: {', '.join(missing)} ({first}: {why})")
    return rows, missing


def show(folder: Path) -> None:
    """Print a mixture: the plan of an epoch and what cleaning removed.

    Raises:
        UserError: there is no whole mixture.
    """
    mixture = Mixture(folder)
    mixing = recipe_of(mixture.manifest).mixing
    has_targets = any(c["rows_without_target"] < c["train_rows"] for c in mixture.manifest["tasks"].values())
    print_plan(mixture, draws_of(mixture.manifest, prompts_too=not has_targets), None, None)
    if mixing.schedule:
        _print_schedule(mixture, draws_of(mixture.manifest))
    _print_cleaning(mixture)


def print_plan(mixture: Mixture, draws: Draws, num_rows: int | None, max_length: int | None) -> None:
    """Print the plan that stands before step 0: a row a task.

    Args:
        num_rows: rows of the whole run; None: of an epoch.
        max_length: rows are cut after so many tokens.
    """
    from rich.table import Table

    manifest = mixture.manifest
    mixing = recipe_of(manifest).mixing
    per_epoch = sum(draws.rows)
    times = (num_rows or per_epoch) / per_epoch
    given_tokens = sum(draws.given_tokens)
    title = f"mixture, {mixing.scheme}" + (f", {times:.2f} epochs of {per_epoch} rows" if num_rows else "")
    table = Table(title=title, title_justify="left")
    table.add_column("task", overflow="fold", min_width=24)
    names = (
        "rows",
        "tokens",
        f"asked ({mixing.unit})",
        "of rows",
        "of tokens",
        "epochs",
        "length p50/p95/max",
        "cut",
        "held out",
    )
    for name in names:
        table.add_column(name, justify="right")
    for number, task in enumerate(draws.tasks):
        counts = manifest["tasks"][task]
        start = int(mixture.first_rows[number])
        lengths = mixture.lengths[start : start + draws.sizes[number]]
        cut = int((lengths > max_length).sum()) if max_length else 0
        table.add_row(
            task,
            f"{counts['train_rows']}",
            f"{counts['train_tokens']}",
            f"{draws.asked[number]:.1%}",
            f"{draws.rows[number] / per_epoch:.1%}",
            f"{draws.given_tokens[number] / max(given_tokens, 1):.1%}",
            f"{draws.rows[number] * times / draws.sizes[number]:.2f}",
            "/".join(map(str, counts["lengths"])),
            f"{cut}" if max_length else "-",
            f"{counts['heldout_rows']}",
        )
    console().print(table)
    say(
        f"  {len(mixture)} rows, {len(mixture.tokens)} tokens; an epoch reads {per_epoch} rows,"
        f" {given_tokens:.0f} tokens"
    )


def _print_schedule(mixture: Mixture, draws: Draws) -> None:
    from rich.table import Table

    shown = [0, len(draws.stages) // 4, len(draws.stages) // 2, 3 * len(draws.stages) // 4, len(draws.stages) - 1]
    table = Table(title="share of rows on the way", title_justify="left")
    table.add_column("task", overflow="fold")
    for stage in shown:
        table.add_column(f"at {(stage + 0.5) / len(draws.stages):.0%}", justify="right")
    for number, task in enumerate(draws.tasks):
        shares = [draws.stages[stage][number] / max(sum(draws.stages[stage]), 1) for stage in shown]
        table.add_row(task, *(f"{share:.1%}" for share in shares))
    console().print(table)


def _print_cleaning(mixture: Mixture) -> None:
    from rich.table import Table

    manifest = mixture.manifest
    removed = [json.loads(line) for line in (mixture.folder / REMOVED).read_text(encoding="utf-8").splitlines()]
    say(f"  protected: {manifest['protected_rows']} benchmark items and held-out questions; removed: {len(removed)}")
    if manifest["halves_trained_on"]:
        say(f"  reads the training half of: {', '.join(manifest['halves_trained_on'])} (no official score on these)")
    if not removed:
        return
    table = Table(title="removed", title_justify="left")
    for name in ("task", "reason"):
        table.add_column(name, overflow="fold")
    table.add_column("rows", justify="right")
    for (task, reason), count in sorted(Counter((line["task"], line["reason"]) for line in removed).items()):
        table.add_row(task, reason, f"{count}")
    console().print(table)
    examples = [line for line in removed if line["because"]][:EXAMPLES]
    for line in examples:
        say(f"  {line['id']}: {line['reason']} of {line['because']} ({line['score']}): {line['text']!r}")
    if examples:
        say(f"  the others: {mixture.folder / REMOVED}")


def diff(one: Path, two: Path) -> None:
    """Explain how two mixtures differ: recipes, sources, tasks, rows.

    Raises:
        UserError: one of them is no whole mixture.
    """
    from rich.table import Table

    a, b = Mixture(one), Mixture(two)
    if a.manifest == b.manifest:
        say("the two mixtures are the same, byte for byte")
        return
    for name in ("seed", "tokenizer"):
        if a.manifest[name] != b.manifest[name]:
            say(f"{name}: {a.manifest[name]} -> {b.manifest[name]}")
    for key, (before, after) in _changes(a.manifest["recipe"], b.manifest["recipe"]).items():
        say(f"recipe, {key}: {_short(before)} -> {_short(after)}")
    for task, (before, after) in _changes(a.manifest["sources"], b.manifest["sources"]).items():
        say(f"source of {task}: {_short(before)} -> {_short(after)}")
    shares = [_shares_given(mixture) for mixture in (a, b)]
    texts = [_rows_by_task(mixture) for mixture in (a, b)]
    table = Table(title="tasks", title_justify="left")
    table.add_column("task", overflow="fold")
    for name in ("rows", "tokens", "share of draws", "only before", "only after", "changed"):
        table.add_column(name, justify="right")
    example: tuple[str, str] | None = None
    for task in dict.fromkeys([*a.manifest["tasks"], *b.manifest["tasks"]]):
        before, after = (m.manifest["tasks"].get(task, {"train_rows": 0, "train_tokens": 0}) for m in (a, b))
        rows_a, rows_b = (found.get(task, {}) for found in texts)
        gone, new = rows_a.keys() - rows_b.keys(), rows_b.keys() - rows_a.keys()
        changed = sorted(key for key in rows_a.keys() & rows_b.keys() if rows_a[key] != rows_b[key])
        if not example and (gone or new or changed):
            example = (task, min(gone or new or changed))
        table.add_row(
            task,
            *(
                f"{before[key]} -> {after[key]}" if before[key] != after[key] else f"{after[key]}"
                for key in ("train_rows", "train_tokens")
            ),
            f"{shares[0].get(task, 0):.2%} -> {shares[1].get(task, 0):.2%}",
            f"{len(gone)}",
            f"{len(new)}",
            f"{len(changed)}",
        )
    console().print(table)
    if example:
        say(f"for example, of {example[0]}: {example[1]}")


def _changes(a: Any, b: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in dict.fromkeys([*a, *b]):
            found |= _changes(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
        return found
    return {} if a == b else {path: (a, b)}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else text[:97] + "..."


def _shares_given(mixture: Mixture) -> dict[str, float]:
    draws = draws_of(mixture.manifest, prompts_too=True)
    total = max(sum(draws.rows), 1)
    return {task: rows / total for task, rows in zip(draws.tasks, draws.rows, strict=True)}


def _rows_by_task(mixture: Mixture) -> dict[str, dict[str, int]]:
    """Return {task: {row id: hash of its tokens}}."""
    import pyarrow as pa

    from data_recipes.store import TRAIN

    found: dict[str, dict[str, int]] = {}
    with pa.memory_map(str(mixture.folder / TRAIN)) as source:
        table = pa.ipc.open_file(source).read_all().select(["id", "task"])
        for index, (row_id, task) in enumerate(zip(table["id"].to_pylist(), table["task"].to_pylist(), strict=True)):
            tokens = mixture.tokens[mixture.offsets[index] : mixture.offsets[index + 1]]
            found.setdefault(task, {})[row_id] = hash((tokens.tobytes(), int(mixture.targets[index])))
    return found


def sample(folder: Path, model: str, task: str | None, count: int, start: int) -> None:
    """Print rows as the model will see them, in the mixture's order, what is not trained on dimmed.

    Training reads the same order, arranged in batches of like length and without rows that have no target.

    Args:
        model: whose tokenizer turns the tokens back into text; it has to be the one the mixture was built for.
        task: only rows of this task.
        start: position of the order to begin at.

    Raises:
        UserError: there is no whole mixture, it is for another tokenizer, or it has no such task.
    """
    from rich.text import Text

    from data_recipes.errors import nearest

    mixture = Mixture(folder)
    tokeniser = ChatTokeniser(resolve_model(model))
    if tokeniser.name != mixture.manifest["tokenizer"]:
        raise UserError(
            f"{folder}: built for another tokenizer than that of {model}; give --model the one it was built for"
        )
    if task is not None and task not in mixture.tasks:
        raise UserError(f"{folder}: no training rows of the task {task!r}{nearest(task, mixture.tasks)}")
    order = draws_of(mixture.manifest, prompts_too=True).order(mixture.manifest["seed"])
    shown = 0
    position = start
    while shown < count and position < start + len(order):
        for index in order.indices(position, min(position + 1024, start + len(order))).tolist():
            row_task = mixture.tasks[int(mixture.task_ids(index))]
            if task in (None, row_task) and shown < count:
                shown += 1
                ids = mixture.tokens[mixture.offsets[index] : mixture.offsets[index + 1]].tolist()
                cut = int(mixture.targets[index])
                counts = f"{len(ids)} tokens, {len(ids) - cut} trained"
                head = f"--- position {position}: {row_task}, {mixture.row(index).id}, {counts}"
                out = console()
                out.print(Text(head, style="bold"), soft_wrap=True)
                decode = partial(tokeniser.tokenizer.decode, clean_up_tokenization_spaces=False)
                out.print(
                    Text(decode(ids[:cut]), style="dim"), Text(decode(ids[cut:])), sep="", end="\n", soft_wrap=True
                )
            position += 1


def build_recipe(
    name: str, folder: Path, model: str, seed: int, workers: int | None, slurm: dict[str, Any] | None = None
) -> None:
    """`whetstone mix build`: build a recipe without an experiment.

    Args:
        slurm: ``partition``, ``tasks`` and ``time`` of a job array that makes the parts; None: here.

    Raises:
        UserError: the recipe cannot be built, the folder is something else, or there is no Slurm.
    """
    if folder.exists() and not (folder / "manifest.json").exists():
        raise UserError(f"{folder}: exists and is no mixture; give --output another folder")
    recipe, _ = load_recipe(name)
    if slurm is None:
        with locked(folder.with_name(f".{folder.name}.parts")):  # two builds of one folder would remove each other's
            build(recipe, folder, model, seed, workers)
        return
    if shutil.which("sbatch") is None:
        raise UserError("--slurm: no sbatch on this machine; leave --slurm out to build here")
    from data_recipes.distributed import build_on_slurm

    tokeniser = ChatTokeniser(resolve_model(model))
    folder = folder.absolute()
    protected, missing = _protected(recipe)
    plan, heldout = prepare(recipe, folder, tokenise=tokeniser, protected=protected, missing=missing)
    build_on_slurm(plan, heldout, folder, seed, **slurm)
    say(f"  submitted; squeue shows the jobs, and the last of them leaves the mixture in {folder}")
