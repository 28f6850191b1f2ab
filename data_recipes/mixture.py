"""A recipe becomes a mixture folder: train and held-out rows as Parquet, and a manifest that accounts for them.

The same recipe over the same sources gives the same bytes. Weighting is union without replacement: every row once an
epoch, so a task's share is its number of rows; the order is a pure function of seed and epoch (`epoch_order`).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import folder_written_atomically, read_json, sha256, write_json
from data_recipes.recipe import Recipe, source_revisions, task_rows
from data_recipes.row import Row, normalise

TRAIN, HELDOUT, MANIFEST = "train.parquet", "heldout.parquet", "manifest.json"


def build_mixture(
    recipe: Recipe,
    recipe_path: Path,
    folder: Path,
    *,
    seed: int,
    count_tokens: Callable[[Row], int],
    run_dir: Path | None = None,
    protected: Iterable[Row] = (),
) -> dict[str, Any]:
    """Build the mixture of `recipe` in `folder` and return its manifest.

    Training rows that contain the normalised text of a held-out question, of this recipe or of `protected`, are
    dropped and counted; `find_leaks` then has to come back empty.

    Args:
        count_tokens: tokens of a whole row as the trainer will see it.
        run_dir: what ``{run}`` in the recipe's paths means.
        protected: benchmark rows that nothing may train on.

    Raises:
        UserError: a source cannot give what the recipe asks, or cleaning leaves a task without rows.
    """
    train: list[Row] = []
    heldout: list[Row] = []
    for task in recipe.tasks:
        for_training, kept_away = task_rows(recipe, recipe_path, task, run_dir)
        train += for_training
        heldout += kept_away
    leaks = find_leaks(train, [*heldout, *protected])
    before = Counter(row.task for row in train)
    train = [row for row in train if row.id not in leaks]
    left = Counter(row.task for row in train)
    for task, rows in before.items():
        if not left[task]:
            raise UserError(f"{recipe_path}, task {task}: all {rows} training rows contain a held-out question")
    duplicates = [row_id for row_id, rows in Counter(row.id for row in train + heldout).items() if rows > 1]
    if duplicates:
        raise UserError(
            f"{recipe_path}: two rows share the id {duplicates[0]!r}; give the sources distinct keys or seeds"
        )

    order = epoch_order(seed, 0, len(train))
    train = [train[index] for index in order]
    with folder_written_atomically(folder) as temporary:
        for name, rows in ((TRAIN, train), (HELDOUT, heldout)):
            _write_rows(temporary / name, rows)
        manifest = {
            "recipe": recipe.model_dump(exclude_defaults=True),
            "seed": seed,
            "sources": source_revisions(recipe, recipe_path, run_dir),
            "tasks": _account(train, heldout, count_tokens),
            "removed_because_of_a_heldout_question": leaks,
            "heldout_questions_found_in_training": len(find_leaks(train, [*heldout, *protected])),
            "files": {name: sha256(temporary / name) for name in (TRAIN, HELDOUT)},
        }
        write_json(temporary / MANIFEST, manifest)
    return manifest


def epoch_order(seed: int, epoch: int, num_rows: int) -> list[int]:
    """Return the permutation of ``range(num_rows)`` in which an epoch reads the rows: a pure function."""
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(num_rows).tolist()


def find_leaks(train: Iterable[Row], heldout: Iterable[Row]) -> dict[str, str]:
    """Return {training row id: held-out row id} wherever a held-out question's text occurs, normalised, in training.

    It looks inside every turn, so that a critique of an answer to a held-out question is found too. A question counts
    as occurring only between word boundaries: ``3 + 5`` does not occur in ``13 + 5``.
    """
    questions = {_innermost_question(row): row.id for row in heldout}
    lengths = {len(question) for question in questions}
    leaks = {}
    for row in train:
        text = normalise(
            "\n".join(message.content for message in row.messages + (row.chosen or []) + (row.rejected or []))
        )
        starts = [match.start() for match in re.finditer(r"(?<!\w)\S", text)]
        windows = ((start, length) for length in lengths for start in starts if start + length <= len(text))
        for start, length in windows:
            found = questions.get(text[start : start + length])
            if found and not (
                text[start + length : start + length + 1].isalnum() and text[start + length - 1].isalnum()
            ):
                leaks[row.id] = found
                break
    return leaks


def _innermost_question(row: Row) -> str:
    """The question itself: for a critique row the one whose answer is criticised, else the last user turn."""
    return normalise(row.meta.get("question", row.question))


def _account(train: list[Row], heldout: list[Row], count_tokens: Callable[[Row], int]) -> dict[str, dict[str, Any]]:
    tokens: Counter[str] = Counter()
    for row in train:
        tokens[row.task] += count_tokens(row)
    rows, kept = Counter(row.task for row in train), Counter(row.task for row in heldout)
    kinds = {row.task: row.kind for row in train + heldout}
    most_frequent = most_frequent_targets(train)
    return {
        task: {
            "kind": kinds[task],
            "train_rows": rows[task],
            "train_tokens": tokens[task],
            "share_of_tokens": round(tokens[task] / max(tokens.total(), 1), 4),
            "heldout_rows": kept[task],
            "distinct_answers": len({row.answer for row in train + heldout if row.task == task}),
            "most_frequent_target": most_frequent.get(task),
        }
        for task in sorted(kinds, key=lambda task: (kinds[task] == "critique", task))
    }


def most_frequent_targets(train: Iterable[Row]) -> dict[str, str]:
    """Return each task's most frequent answer among the training rows (ties: the first in sorted order)."""
    counts: dict[str, Counter[str]] = {}
    for row in train:
        if row.answer is not None:
            counts.setdefault(row.task, Counter())[row.answer] += 1
    return {task: min(answers, key=lambda a: (-answers[a], a)) for task, answers in counts.items()}


def _write_rows(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("task", pa.string()),
            ("kind", pa.string()),
            ("messages", turns),
            ("chosen", turns),
            ("rejected", turns),
            ("answer", pa.string()),
            ("verifiers", pa.list_(pa.string())),
            ("meta", pa.string()),  # JSON: each source knows other things
        ]
    )
    plain = [{**row.model_dump(), "meta": json.dumps(row.meta, sort_keys=True, default=str)} for row in rows]
    pq.write_table(pa.Table.from_pylist(plain, schema=schema), path)


def read_mixture(folder: Path, name: str) -> list[Row]:
    """Read the rows of one file (`TRAIN` or `HELDOUT`) of a mixture folder.

    Raises:
        UserError: the mixture is missing, truncated or changed since it was built.
    """
    import pyarrow.parquet as pq

    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder}: no mixture here; build it with 'whetstone mix FILE'")
    manifest = read_json(folder / MANIFEST)
    path = folder / name
    if not path.exists() or sha256(path) != manifest["files"][name]:
        raise UserError(
            f"{path}: truncated or changed since it was built; delete {folder} and run the same command again"
        )
    return [Row.model_validate({**row, "meta": json.loads(row["meta"])}) for row in pq.read_table(path).to_pylist()]
