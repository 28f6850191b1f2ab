"""A mixture folder on disk: rows as Arrow, tokens as one flat array, and a manifest that accounts for both.

======================  ====================================================================================
``train.arrow``         the training rows, task after task, in batches of `BATCH` (Arrow IPC, memory-mapped)
``heldout.arrow``       the held-out rows
``tokens.bin``          all training rows' tokens one after another, 16 or 32 bits each, little-endian
``offsets.npy``         (N + 1,) int64: row i has the tokens from ``offsets[i]`` to ``offsets[i + 1]``
``targets.npy``         (N,) int32: the first trained token of row i, counted within the row
``removed.jsonl``       what cleaning removed, and why
``manifest.json``       recipe, sources, counts, hashes; written last
======================  ====================================================================================
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_recipes.errors import UserError
from data_recipes.files import read_json, sha256
from data_recipes.order import Order
from data_recipes.row import Row

TRAIN, HELDOUT, MANIFEST = "train.arrow", "heldout.arrow", "manifest.json"
TOKENS, OFFSETS, TARGETS, REMOVED = "tokens.bin", "offsets.npy", "targets.npy", "removed.jsonl"
BATCH = 1024

_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("kind", pa.string()),
        ("messages", _TURNS),
        ("chosen", _TURNS),
        ("rejected", _TURNS),
        ("answer", pa.string()),
        ("verifiers", pa.list_(pa.string())),
        ("meta", pa.string()),  # JSON: each source knows other things
    ]
)


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Return the rows as an Arrow table."""

    def turns(messages: Any) -> Any:
        return None if messages is None else [{"role": turn.role, "content": turn.content} for turn in messages]

    columns = {
        "id": [row.id for row in rows],
        "task": [row.task for row in rows],
        "kind": [row.kind for row in rows],
        "messages": [turns(row.messages) for row in rows],
        "chosen": [turns(row.chosen) for row in rows],
        "rejected": [turns(row.rejected) for row in rows],
        "answer": [row.answer for row in rows],
        "verifiers": [row.verifiers for row in rows],
        "meta": [json.dumps(row.meta, sort_keys=True, default=str) for row in rows],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def rows_in(table: pa.Table | pa.RecordBatch) -> list[Row]:
    """Return an Arrow table's rows."""
    return [
        Row.model_validate({**row, "meta": json.loads(row["meta"])}) for row in table.select(SCHEMA.names).to_pylist()
    ]


class TableWriter:
    """Writes an Arrow file in batches of `BATCH` rows, however the rows come in."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)
        self._pending: list[pa.Table] = []
        self._num_pending = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._pending.append(table.select(SCHEMA.names))
        self._num_pending += table.num_rows
        if self._num_pending >= BATCH:
            self._flush(self._num_pending // BATCH * BATCH)

    def _flush(self, num_rows: int) -> None:
        whole = pa.concat_tables(self._pending)
        for start in range(0, num_rows, BATCH):
            part = whole.slice(start, min(BATCH, num_rows - start)).combine_chunks()
            self._writer.write_table(part, max_chunksize=BATCH)
        # copied, so that what was written can be forgotten
        rest = whole.slice(num_rows)
        self._pending = [rest.take(pa.array(range(rest.num_rows), pa.int64()))] if rest.num_rows else []
        self._num_pending = rest.num_rows

    def close(self) -> None:
        """Write what is left."""
        if self._pending:
            self._flush(self._num_pending)
        self._writer.close()
        self._sink.close()


class TokenWriter:
    """Writes the tokens of rows one after another."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self._folder = folder
        self._type = np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")
        self._file = open(folder / TOKENS, "wb")  # noqa: SIM115 - kept open between rows
        self._lengths: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []

    def write(self, tokens: pa.ChunkedArray, targets: pa.ChunkedArray) -> None:
        """Add rows: lists of token ids, and where in each the target begins."""
        tokens = tokens.combine_chunks()
        self._file.write(tokens.flatten().to_numpy().astype(self._type).tobytes())
        self._lengths.append(np.diff(tokens.offsets.to_numpy()).astype(np.int32))
        self._targets.append(targets.to_numpy().astype(np.int32))

    def close(self) -> tuple[np.ndarray, np.ndarray]:
        """Write the index; return every row's length and first trained token."""
        self._file.close()
        empty = [np.zeros(0, np.int32)]
        lengths, targets = np.concatenate(self._lengths or empty), np.concatenate(self._targets or empty)
        np.save(self._folder / OFFSETS, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        np.save(self._folder / TARGETS, targets)
        return lengths, targets


class Mixture:
    """A mixture folder, read without loading it: rows and tokens stay on disk until they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Open a folder and check its files against the manifest.

        Raises:
            UserError: the mixture is missing, truncated or changed since it was built.
        """
        self.folder = folder
        if not (folder / MANIFEST).exists():
            raise UserError(f"{folder}: no mixture here; build it with 'whetstone mix FILE'")
        self.manifest: dict[str, Any] = read_json(folder / MANIFEST)
        for name, digest in self.manifest["files"].items():
            if not (folder / name).exists() or sha256(folder / name) != digest:
                raise UserError(
                    f"{folder / name}: truncated or changed since it was built; delete {folder} and run the same"
                    " command again"
                )
        self.tasks: list[str] = [task for task, counts in self.manifest["tasks"].items() if counts["train_rows"]]

    def __len__(self) -> int:
        """Training rows."""
        return len(self.offsets) - 1

    @cached_property
    def _train(self) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(pa.memory_map(str(self.folder / TRAIN)))

    @cached_property
    def tokens(self) -> np.ndarray:
        """All training tokens, memory-mapped."""
        path = self.folder / TOKENS
        kind = np.dtype(self.manifest["token_type"])
        # a plain view: slicing np.memmap itself costs more than reading the slice
        return np.asarray(np.memmap(path, kind, mode="r")) if path.stat().st_size else np.zeros(0, kind)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(N + 1,) where each row's tokens begin."""
        return np.asarray(np.load(self.folder / OFFSETS, mmap_mode="r"))

    @cached_property
    def targets(self) -> np.ndarray:
        """(N,) first trained token of each row."""
        return np.asarray(np.load(self.folder / TARGETS, mmap_mode="r"))

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each row."""
        return np.diff(self.offsets)

    @cached_property
    def sizes(self) -> list[int]:
        """Training rows of each of `tasks`, which follow one another in this order."""
        return [self.manifest["tasks"][task]["train_rows"] for task in self.tasks]

    @cached_property
    def first_rows(self) -> np.ndarray:
        """(T,) index of each task's first row."""
        return np.concatenate([[0], np.cumsum(self.sizes)])[:-1].astype(np.int64)

    def task_ids(self, indices: np.ndarray) -> np.ndarray:
        """Return the number in `tasks` of each row's task."""
        return np.searchsorted(self.first_rows, indices, side="right") - 1

    def row(self, index: int) -> Row:
        """Return one training row."""
        batch = self._train.get_batch(index // BATCH)
        return rows_in(batch.slice(index % BATCH, 1))[0]

    def rows(self, name: str = TRAIN) -> list[Row]:
        """Return all rows of a file (`TRAIN` or `HELDOUT`)."""
        with pa.memory_map(str(self.folder / name)) as source:
            return rows_in(pa.ipc.open_file(source).read_all())

    def batch(self, indices: Sequence[int] | np.ndarray, padding: int = 0) -> dict[str, np.ndarray]:
        """Return the tokens of some rows, padded on the right.

        Args:
            indices: (B,) row indices.
            padding: token id to pad with.

        Returns:
            ``input_ids`` (B, L) int64; ``attention_mask`` (B, L) and ``trained`` (B, L) bool, where the row has a
            token and where it is trained on; ``task_ids`` (B,).
        """
        indices = np.asarray(indices)
        starts, ends = self.offsets[indices], self.offsets[indices + 1]
        lengths = ends - starts
        columns = np.arange(int(lengths.max(initial=0)))
        ids = np.full((len(indices), len(columns)), padding, np.int64)
        tokens = self.tokens
        for row, start, end in zip(ids, starts.tolist(), ends.tolist(), strict=True):
            row[: end - start] = tokens[start:end]
        mask = columns < lengths[:, None]
        trained = mask & (columns >= self.targets[indices][:, None])
        return {"input_ids": ids, "attention_mask": mask, "trained": trained, "task_ids": self.task_ids(indices)}

    def read(self, order: Order, start: int, stop: int, batch_size: int) -> Iterable[dict[str, np.ndarray]]:
        """Yield the batches at positions `start` to `stop` of training, from anywhere at once."""
        block = batch_size * max(1, (1 << 16) // batch_size)
        for first in range(start, stop, block):
            indices = order.indices(first, min(first + block, stop))
            for place in range(0, len(indices), batch_size):
                yield self.batch(indices[place : place + batch_size])


def read_mixture(folder: Path, name: str) -> list[Row]:
    """Read the rows of one file (`TRAIN` or `HELDOUT`) of a mixture folder.

    Raises:
        UserError: the mixture is missing, truncated or changed since it was built.
    """
    return Mixture(folder).rows(name)
