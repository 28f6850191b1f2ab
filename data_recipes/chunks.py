"""The part of a build that is done chunk by chunk, in any order and by any number of workers.

A chunk of a source's records becomes a *part*: a file with the rows, their tokens, hashes, and the first reason to
remove each one that can be seen without knowing the other rows. `data_recipes.mixture` goes through the parts in order.
Parts are written whole or not at all, so a build that was killed goes on with the parts it has.
"""

import hashlib
import os
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from data_recipes.decontamination import Match, Protected
from data_recipes.reading import group_of, id_prefix, made_of, prompt_of
from data_recipes.recipe import Cleaning, Quality, Recipe
from data_recipes.row import Row, normalise
from data_recipes.sources import Source
from data_recipes.store import table_of

CHUNK = 2048
"""Most records of a part. Only the recipe decides: a mixture's bytes do not depend on who builds it."""
SERIAL = 4
"""So many chunks are worked off before other processes are started: small mixtures never wait for them."""


class Tokenise(Protocol):
    """What a mixture needs of a tokenizer; it has to survive pickling."""

    name: str
    """Identifies the tokenizer and its chat template."""
    vocabulary: int
    """Token ids are below this."""

    def __call__(self, rows: list[Row]) -> list[tuple[list[int], int]]:
        """Return each row's tokens and the place of the first trained one (their number where none is)."""


@dataclass
class Plan:
    """All that a worker needs to know of a build."""

    recipe: Recipe
    sources: dict[str, Source]
    tokenise: Tokenise
    protected: Protected
    heldout_groups: dict[str, set[str]]
    """Groups of rows that are held out, by recipe task."""
    parts: Path
    """Where parts are written."""
    benchmarks: dict[str, str] = field(default_factory=dict)
    """Of the protected rows, those that are benchmarks' items: {id: benchmark}."""
    training_half: set[str] = field(default_factory=set)
    """Of these, the ids that a source of the training half may repeat."""
    not_protected: dict[str, str] = field(default_factory=dict)
    """Benchmarks whose items could not be had, and why."""
    prefixes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prefixes = {task: id_prefix(source) for task, source in self.sources.items()}

    def path(self, task: str, number: int) -> Path:
        """Return a part's file."""
        return self.parts / f"{list(self.recipe.tasks).index(task):04d}-{number:06d}.arrow"


def chunks_of(plan: Plan, task: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield a task's records in numbered chunks."""
    records = plan.sources[task].records()
    settings = plan.recipe.tasks[task]
    # few rows out of a large source: no more is read than about that many
    size = min(CHUNK, max(128, settings.train_rows + settings.heldout_rows)) if settings.train_rows else CHUNK
    number = 0
    while chunk := list(islice(records, size)):
        yield number, chunk
        number += 1


def make_part(plan: Plan, task: str, number: int, records: list[dict[str, Any]]) -> Path:
    """Write the part of a chunk, unless it is there already; return its file.

    Raises:
        UserError: a record does not fit the recipe.
    """
    path = plan.path(task, number)
    if path.exists():
        return path
    settings, source = plan.recipe.tasks[task], plan.sources[task]
    made = (made_of(task, settings, source, plan.prefixes[task], record) for record in records)
    rows = [row for row in made if row is not None]
    tokens = plan.tokenise(rows)
    reasons = [_reason(plan, task, row, len(ids)) for row, (ids, _) in zip(rows, tokens, strict=True)]
    hashed = plan.recipe.cleaning.duplicates
    extra = {
        "tokens": pa.array([ids for ids, _ in tokens], pa.list_(pa.uint32())),
        "target": pa.array([target for _, target in tokens], pa.int32()),
        "prompt_hash": pa.array([_hash(prompt_of(row)) if hashed else 0 for row in rows], pa.uint64()),
        "text_hash": pa.array([_hash(text_of(row)) if hashed else 0 for row in rows], pa.uint64()),
        "reason": pa.array([reason for reason, _, _ in reasons], pa.string()),
        "because": pa.array([match and match.item for _, match, _ in reasons], pa.string()),
        "score": pa.array([match and match.score for _, match, _ in reasons], pa.float32()),
        "half_of": pa.array([benchmarks for _, _, benchmarks in reasons], pa.string()),
    }
    table = table_of(rows)
    for name, column in extra.items():
        table = table.append_column(name, column)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_part(path: Path) -> pa.Table:
    """Return a part's table."""
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()


class Workers:
    """Makes parts: in this process, and for more than a few chunks in others, which are started when first needed."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self._plan, self._workers = plan, workers
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def parts(self, task: str) -> Iterator[Path]:
        """Yield a task's parts in order; how many processes make them changes nothing but the time."""
        chunks = chunks_of(self._plan, task)
        for number, records in islice(chunks, SERIAL if self._workers > 1 else None):
            yield make_part(self._plan, task, number, records)
        waiting: list[Future[Path]] = []
        try:
            for number, records in chunks:
                done = self._plan.path(task, number).exists()
                waiting.append(self._pool().submit(_make_held, task, number, [] if done else records))
                if len(waiting) >= 3 * self._workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()

    def _pool(self) -> ProcessPoolExecutor:
        if self._executor is None:
            plan = pickle.dumps(self._plan)
            self._executor = ProcessPoolExecutor(
                self._workers, mp_context=get_context("spawn"), initializer=_hold, initargs=(plan,)
            )
        return self._executor


_held: dict[str, Plan] = {}
"""A worker process's plan: handed over once, not with every chunk."""


def _hold(pickled: bytes) -> None:
    _held["plan"] = pickle.loads(pickled)  # noqa: S301 - from the process that started this one


def _make_held(task: str, number: int, records: list[dict[str, Any]]) -> Path:
    return make_part(_held["plan"], task, number, records)


def text_of(row: Row) -> str:
    """Return all a row says: prompt, answers, preferences."""
    return "\n".join(turn.content for turn in row.messages + (row.chosen or []) + (row.rejected or []))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(normalise(text).encode(), digest_size=8).digest(), "little")


def _reason(plan: Plan, task: str, row: Row, num_tokens: int) -> tuple[str | None, Match | None, str | None]:
    """Return the first reason to remove a row, the protected row it copies, and the benchmark it may copy."""
    cleaning = plan.recipe.cleaning
    if plan.heldout_groups[task] and group_of(row) in plan.heldout_groups[task]:
        return "held out", None, None
    how = plan.recipe.decontamination_of(task)
    allowed: list[str] = []
    if how != "none":
        half = plan.training_half if plan.sources[task].settings.half == "train" else set()

        def exempt(item: str) -> bool:
            if item in half:
                allowed.append(plan.benchmarks[item])
            return item in half

        match = plan.protected.find(row, near=how == "near", exempt=exempt)
        if match:
            return f"protected ({match.how})", match, None
    reason = _fault(cleaning, row, num_tokens)
    return reason, None, ",".join(sorted(set(allowed))) if allowed and reason is None else None


def _fault(cleaning: Cleaning, row: Row, num_tokens: int) -> str | None:
    if num_tokens < cleaning.min_tokens:
        return "too short"
    if cleaning.max_tokens and num_tokens > cleaning.max_tokens:
        return "too long"
    if cleaning.quality and (fault := quality_fault(cleaning.quality, row)):
        return fault
    if cleaning.languages and (language := language_of(row)) not in cleaning.languages:
        return f"language {language}"
    return None


def quality_fault(quality: Quality, row: Row) -> str | None:
    """Return which limit the row's target (or chosen answer) is beyond, or None."""
    target = row.target if row.target is not None else (row.chosen[-1].content if row.chosen else None)
    if target is None:
        return None
    if len(target) < quality.min_target_characters:
        return "target too short"
    if quality.max_target_characters and len(target) > quality.max_target_characters:
        return "target too long"
    lines = [line.strip() for line in target.splitlines() if line.strip()]
    repeated = 1 - len(set(lines)) / max(len(lines), 1)
    if lines and quality.max_repeated_lines is not None and repeated > quality.max_repeated_lines:
        return "repeated lines"
    symbols = len(re.findall(r"[^\w\s]", target)) / max(len(target), 1)
    if quality.max_symbols is not None and symbols > quality.max_symbols:
        return "mostly symbols"
    return None


def language_of(row: Row) -> str:
    """Return the ISO 639-1 code of the language a row is most likely written in."""
    import py3langid

    return py3langid.classify(text_of(row))[0]
