"""A recipe becomes a mixture folder: cleaned rows and their tokens, and a manifest that accounts for them.

The same recipe over the same sources gives the same bytes, whoever and however many build it. Held-out rows are chosen
first; then each task's records go through `data_recipes.chunks` in parts, and here, in the source's order, through what
needs to know the rows before: duplicates and the number of rows asked for. A build that was killed goes on with the
parts it has.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_recipes.chunks import Plan, Tokenise, Workers, read_part, text_of
from data_recipes.cleaning import NearSeen, Seen
from data_recipes.decontamination import Protected
from data_recipes.errors import UserError
from data_recipes.evaluation_sets import SHARED, halves_in
from data_recipes.files import fingerprint, folder_written_atomically, sha256, write_json
from data_recipes.halves import half_of
from data_recipes.reading import group_of, held_out, question_of, sources_of, too_few
from data_recipes.recipe import Recipe
from data_recipes.row import Row
from data_recipes.store import (
    HELDOUT,
    MANIFEST,
    OFFSETS,
    REMOVED,
    TARGETS,
    TOKENS,
    TRAIN,
    TableWriter,
    TokenWriter,
    rows_in,
    table_of,
)

MOST_ANSWERS = 100_000
"""Distinct answers of a task that are counted; beyond, the most frequent one is not looked for."""
EXCERPT = 120


def build_mixture(
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    tokenise: Tokenise,
    run_dir: Path | None = None,
    protected: Iterable[Row] = (),
    missing: Mapping[str, str] = MappingProxyType({}),
    workers: int = 1,
) -> dict[str, Any]:
    """Build the mixture of `recipe` in `folder` and return its manifest.

    Args:
        seed: of the order in which training reads the rows; recorded in the manifest.
        tokenise: turns rows into the tokens that the trainer sees.
        run_dir: what ``{run}`` in the recipe's paths means.
        protected: benchmark rows that nothing may train on.
        missing: benchmarks whose rows could not be had, and why; recorded in the manifest.
        workers: processes; they change the time a build takes, not a byte of its result.

    Raises:
        UserError: a source cannot give what the recipe asks, or cleaning leaves a task without rows.
    """
    plan, heldout = prepare(recipe, folder, tokenise=tokenise, run_dir=run_dir, protected=protected, missing=missing)
    return finish(plan, heldout, folder, seed, workers)


def finish(plan: Plan, heldout: list[Row], folder: Path, seed: int, workers: int) -> dict[str, Any]:
    """Make the parts that are missing, put all together in `folder` and return the manifest.

    Raises:
        UserError: a source cannot give what the recipe asks, or cleaning leaves a task without rows.
    """
    with folder_written_atomically(folder) as temporary:
        writer = _Writer(plan, temporary, heldout)
        with Workers(plan, workers) as pool:
            for task in plan.recipe.tasks:
                writer.add_task(task, pool.parts(task))
        manifest = writer.close(seed)
    shutil.rmtree(plan.parts.parent, ignore_errors=True)
    return manifest


def prepare(
    recipe: Recipe,
    folder: Path,
    *,
    tokenise: Tokenise,
    run_dir: Path | None = None,
    protected: Iterable[Row] = (),
    missing: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Plan, list[Row]]:
    """Choose the held-out rows and make the plan by which every worker makes its parts; return both.

    Raises:
        UserError: a source does not hold together or holds too few rows.
    """
    opened = {task: sources_of(recipe, task, run_dir) for task in recipe.tasks}
    sources = {task: source for task, (source, _) in opened.items()}
    by_task = {task: held_out(recipe, task, opened[task]) for task in recipe.tasks}
    heldout = [row for rows in by_task.values() for row in rows]
    hows = {recipe.decontamination_of(task) for task in recipe.tasks}
    others = list(protected) if recipe.protects_benchmarks else []
    guarded = [*heldout, *others] if hows != {"none"} else []
    identity = fingerprint(
        [
            [list(recipe.tasks), recipe.model_dump(exclude={"mixing", "description"})],  # parts go by a task's number
            {task: source.revision() for task, source in sources.items()},
            tokenise.name,
            sha256(*sorted(Path(__file__).parent.rglob("*.py"))),  # another version may make other parts
            [row.id for row in guarded],
        ]
    )
    parts = folder.with_name(f".{folder.name}.parts") / identity
    for old in parts.parent.glob("*"):
        if old != parts and old.is_dir():  # of another recipe
            shutil.rmtree(old)
    parts.mkdir(parents=True, exist_ok=True)
    groups = {task: {group_of(row) for row in rows} for task, rows in by_task.items()}
    index = Protected(guarded, near="near" in hows)
    benchmarks = {row.id: row.task.split("/")[0] for row in others}
    shared = {row.id for row in others if benchmarks[row.id] in SHARED and half_of(question_of(row)) == "train"}
    return Plan(recipe, sources, tokenise, index, groups, parts, benchmarks, shared, dict(missing)), heldout


@dataclass
class _Account:
    """What a recipe task's records came to."""

    candidates: int = 0  # distinct questions, before any other cleaning
    kept: int = 0
    copies: int = 0  # of benchmark items
    removed: Counter[str] = field(default_factory=Counter)


class _Writer:
    """Goes through the parts in order, decides which rows stay, and writes the folder."""

    def __init__(self, plan: Plan, folder: Path, heldout: list[Row]) -> None:
        self._plan, self._folder, self._heldout = plan, folder, heldout
        self._rows = TableWriter(folder / TRAIN)
        self._tokens = TokenWriter(folder, plan.tokenise.vocabulary)
        self._removed = open(folder / REMOVED, "w", encoding="utf-8")  # noqa: SIM115 - kept open between parts
        self._seen = Seen()
        near = plan.recipe.cleaning.near_duplicates
        self._near = NearSeen(near) if near else None
        self._accounts: dict[str, _Account] = {}
        self._answers: dict[str, Counter[str]] = {}
        self._tasks: dict[str, dict[str, Any]] = {}
        self._halves: set[str] = set()  # benchmarks of which training rows repeat the training half

    def add_task(self, task: str, parts: Iterator[Path]) -> None:
        """Add the rows of one recipe task, as many as it asks for."""
        settings = self._plan.recipe.tasks[task]
        account = self._accounts[task] = _Account()
        self._seen.next_task()
        # whole rows and functions bring ids of their own; other sources number their records
        own_ids = settings.prompt is None or settings.source["type"] == "python"
        ids: set[int] = set()
        subtasks: list[pa.Table] = []
        for path in parts:
            left = settings.train_rows - account.kept if settings.train_rows else None
            table = self._kept(task, read_part(path), account, left)
            for row_id in table["id"].to_pylist() if own_ids else ():
                if hash(row_id) in ids:
                    where = self._plan.sources[task].where
                    raise UserError(
                        f"{where}: two rows share the id {row_id!r}; give the source's records distinct keys"
                    )
                ids.add(hash(row_id))
            names = pc.unique(table["task"]).to_pylist()
            if names and names != [task]:  # whole rows of task/a and task/b may take turns: each has to end up together
                subtasks.append(table)
            elif names:
                self._write(task, table)
            if settings.train_rows and account.kept >= settings.train_rows:
                break
        if subtasks:
            together = pa.concat_tables(subtasks)
            for name in sorted(pc.unique(together["task"]).to_pylist()):
                self._write(name, together.filter(pc.equal(together["task"], name)))
        self._check(task, account)

    def _check(self, task: str, account: _Account) -> None:
        settings, source = self._plan.recipe.tasks[task], self._plan.sources[task]
        if account.candidates < max(settings.train_rows, 1):
            raise too_few(source, settings, account.candidates, sum(row.task == task for row in self._heldout))
        if account.copies > account.candidates / 2 and source.settings.half is None:
            raise UserError(
                f"{source.where}: {account.copies} of {account.candidates} rows are items of a benchmark: this is"
                " (most of) a test set, which nothing trains on; take another source"
            )
        if not account.kept:
            reasons = ", ".join(f"{count} {reason}" for reason, count in account.removed.most_common())
            raise UserError(
                f"{source.where}: cleaning leaves no training row ({reasons}); widen the source or the limits"
            )

    def _kept(self, task: str, table: pa.Table, account: _Account, left: int | None) -> pa.Table:
        """Return the rows of a part that stay, at most `left`; log the others."""
        cleaning = self._plan.recipe.cleaning
        reasons = table["reason"].to_pylist()
        items = table["because"].to_pylist()
        if not cleaning.duplicates and not self._near and not any(reasons):
            kept = table if left is None else table.slice(0, left)
            account.candidates += kept.num_rows
            account.kept += kept.num_rows
            return kept
        prompts, texts = table["prompt_hash"].to_pylist(), table["text_hash"].to_pylist()
        rows = rows_in(table) if self._near else None
        keep = []
        for place, reason in enumerate(reasons):
            if left is not None and len(keep) >= left:
                break
            because, score = items[place], None
            if reason == "held out":
                continue
            if not cleaning.duplicates or self._seen.is_new_question(prompts[place]):
                account.candidates += 1
                account.copies += because in self._plan.benchmarks
            if reason is not None:
                score = table["score"][place].as_py() if because else None
            elif cleaning.duplicates:
                reason = self._seen.repeats(prompts[place], texts[place])
            if reason is None and self._near and rows is not None:
                found = self._near.near(rows[place].id, text_of(rows[place]))
                if found:
                    reason, (because, score) = "near duplicate", found
            if reason is None:
                keep.append(place)
                self._seen.keep(prompts[place], texts[place])
            else:
                self._note(task, account, table, place, reason, because, score)
        account.kept += len(keep)
        return table.take(pa.array(keep, pa.int64()))

    def _note(
        self, task: str, account: _Account, table: pa.Table, place: int, reason: str, because: str | None, score: Any
    ) -> None:
        account.removed[reason] += 1
        turns = table["messages"][place].as_py() or table["chosen"][place].as_py() or []
        text = " ".join(next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "").split())
        line = {"id": table["id"][place].as_py(), "task": task, "reason": reason, "because": because}
        line |= {"score": None if score is None else round(score, 3), "text": text[:EXCERPT]}
        self._removed.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _write(self, name: str, table: pa.Table) -> None:
        self._rows.write(table)
        self._tokens.write(table["tokens"], table["target"])
        if name in self._tasks and name != next(reversed(self._tasks)):  # a task's rows lie together
            raise UserError(f"two tasks of the recipe give rows of the task {name!r}; rename one of the two")
        counts = self._tasks.setdefault(name, {"kind": table["kind"][0].as_py(), "train_rows": 0})
        counts["train_rows"] += table.num_rows
        self._halves |= {
            name for names in pc.unique(table["half_of"].drop_null()).to_pylist() for name in names.split(",")
        }
        answers = self._answers.setdefault(name, Counter())
        if len(answers) <= MOST_ANSWERS:
            for pair in pc.value_counts(table["answer"].drop_null()).to_pylist():
                answers[pair["values"]] += pair["counts"]

    def close(self, seed: int) -> dict[str, Any]:
        """Finish the files and write the manifest; return it."""
        self._rows.close()
        self._removed.close()
        lengths, targets = self._tokens.close()
        heldout = TableWriter(self._folder / HELDOUT)
        if self._heldout:
            heldout.write(table_of(self._heldout))
        heldout.close()
        recipe = self._plan.recipe
        manifest = {
            "recipe": recipe.model_dump(exclude_defaults=True),
            "seed": seed,
            "tokenizer": self._plan.tokenise.name,
            "token_type": "<u2" if self._plan.tokenise.vocabulary <= 1 << 16 else "<u4",
            "sources": {task: source.revision() for task, source in self._plan.sources.items()},
            "halves_trained_on": sorted({*halves_in(self._plan.sources.values()), *self._halves}),
            "protected_rows": self._plan.protected.size,
            "protected": dict(sorted(Counter(self._plan.benchmarks.values()).items())),
            "not_protected": self._plan.not_protected,
            "tasks": self._account_of_tasks(lengths, targets),
            "cleaning": {
                task: {
                    "candidates": account.candidates,
                    "kept": account.kept,
                    "removed": dict(sorted(account.removed.items())),
                }
                for task, account in self._accounts.items()
            },
            "files": {
                name: sha256(self._folder / name) for name in (TRAIN, HELDOUT, TOKENS, OFFSETS, TARGETS, REMOVED)
            },
        }
        write_json(self._folder / MANIFEST, manifest)
        return manifest

    def _account_of_tasks(self, lengths: np.ndarray, targets: np.ndarray) -> dict[str, dict[str, Any]]:
        heldout = Counter(row.task for row in self._heldout)
        heldout_answers: dict[str, set[str | None]] = {}
        for row in self._heldout:
            heldout_answers.setdefault(row.task, set()).add(row.answer)
        for row in self._heldout:
            self._tasks.setdefault(row.task, {"kind": row.kind, "train_rows": 0})
        total = int(lengths.sum(dtype=np.int64))
        tasks, first = {}, 0
        for name, counts in self._tasks.items():
            part = slice(first, first + counts["train_rows"])
            first = part.stop
            answers = self._answers.get(name, Counter())
            few = len(answers) <= MOST_ANSWERS
            most = min(answers, key=lambda answer: (-answers[answer], answer)) if answers and few else None
            tasks[name] = {
                **counts,
                "train_tokens": (tokens := int(lengths[part].sum(dtype=np.int64))),
                "trained_tokens": int((lengths[part] - targets[part]).sum(dtype=np.int64)),
                "rows_without_target": int((lengths[part] == targets[part]).sum()),
                "share_of_tokens": round(tokens / max(total, 1), 4),
                "lengths": [int(v) for v in np.percentile(lengths[part], (50, 95, 100), method="lower")]
                if counts["train_rows"]
                else [0, 0, 0],
                "heldout_rows": heldout[name],
                "distinct_answers": len(set(answers) | heldout_answers.get(name, set()) - {None}) if few else None,
                "most_frequent_target": most,
            }
        return tasks
