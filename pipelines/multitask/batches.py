"""Batches for training: rows padded to the longest, or packed into sequences, in which every token knows its task."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from data_recipes.order import Order
from data_recipes.packing import best_fit, pack_batch
from data_recipes.store import Mixture

IGNORED = -100
PACK_WINDOW = 2048
"""Rows among which sequences are filled."""


class PackedOrder(Sampler[int]):
    """Sequences of a whole run, in order; the same rows in the same sequences whatever the number of processes."""

    def __init__(
        self,
        mixture: Mixture,
        order: Order,
        capacity: int,
        batch_size: int,
        num_rows: int,
        num_steps: int | None,
        substitutes: np.ndarray,
    ) -> None:
        """Put rows into sequences.

        Args:
            capacity: tokens of a sequence; longer rows are cut.
            batch_size: sequences of an optimiser step.
            num_rows: rows to read; the last step is filled with the rows that follow.
            num_steps: or the steps to make.
            substitutes: (N,) the row to read instead of each row.
        """
        lengths = mixture.lengths

        def window(start: int, stop: int) -> list[np.ndarray]:
            rows = substitutes[order.indices(start, stop)]
            found = best_fit(lengths[rows], capacity)
            found.sort(key=min)  # near the mixture's order, not by length
            return [rows[np.sort(members)] for members in found]

        sequences: list[np.ndarray] = []
        wanted = batch_size * num_steps if num_steps else None
        position = 0
        while len(sequences) < wanted if wanted else position < num_rows:
            stop = position + PACK_WINDOW if wanted else min(position + PACK_WINDOW, num_rows)
            sequences += window(position, stop)
            position = stop
        wanted = wanted or -(-len(sequences) // batch_size) * batch_size
        while len(sequences) < wanted:
            sequences += window(position, position + PACK_WINDOW)
            position += PACK_WINDOW
        self.sequences = sequences[:wanted]

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.sequences)))


class Batches:
    """Collates row numbers, or sequence numbers, into what the trainer reads."""

    def __init__(
        self,
        mixture: Mixture,
        max_length: int | None,
        padding: int,
        sequences: list[np.ndarray] | None = None,
        trained: np.ndarray | None = None,
    ) -> None:
        """Remember where rows come from.

        Args:
            max_length: rows are cut after so many tokens; packed: tokens of a sequence.
            padding: token id to pad with.
            sequences: rows of each packed sequence; absent: rows are padded.
            trained: bool for each of the mixture's tokens; absent: the last assistant turn is trained on.
        """
        self._mixture, self._max_length, self._padding = mixture, max_length, padding
        self._sequences, self._trained = sequences, trained

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Args:
            examples: ``index`` of each row or sequence.

        Returns:
            (B, L) tensors: ``input_ids``; ``labels``, -100 where not trained on; ``task_ids``, the task's number where
            trained on, else -1; ``row_tokens``, trained tokens of the row a token belongs to; and ``attention_mask``,
            or packed ``position_ids``, from 0 in each row.
        """
        indices = np.array([example["index"] for example in examples])
        if self._sequences is None:
            batch = self._padded(indices)
        else:
            batch = self._packed([self._sequences[index] for index in indices])
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}

    def _padded(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = self._mixture.batch(rows, self._padding)
        ids, mask, trained = (found[name][:, : self._max_length] for name in ("input_ids", "attention_mask", "trained"))
        if self._trained is not None:
            trained = trained.copy()
            for line, row in enumerate(rows.tolist()):
                self._mark(trained[line], row)
        trained[:, 0] = False  # nothing comes before it
        counts = np.broadcast_to(trained.sum(axis=1, keepdims=True), trained.shape)
        tasks = np.broadcast_to(found["task_ids"][:, None], trained.shape)
        return {**_targets(ids, trained, tasks, counts), "attention_mask": mask.astype(np.int64)}

    def _packed(self, sequences: list[np.ndarray]) -> dict[str, np.ndarray]:
        lengths = self._mixture.lengths
        longest = max(int(lengths[rows].sum()) for rows in sequences)
        found = pack_batch(self._mixture, sequences, min(self._max_length, longest), self._padding)
        trained, segments = found["trained"], found["segment_ids"]
        counts = np.zeros(trained.shape, np.int64)
        for line, rows in enumerate(sequences):
            for segment, row in enumerate(rows.tolist()):
                of_row = segments[line] == segment
                if self._trained is not None:
                    flags = trained[line, of_row]
                    self._mark(flags, row)
                    flags[:1] = False
                    trained[line, of_row] = flags
                counts[line, of_row] = trained[line, of_row].sum()
        targets = _targets(found["input_ids"], trained, found["task_ids"], counts)
        return {**targets, "position_ids": found["position_ids"]}

    def _mark(self, flags: np.ndarray, row: int) -> None:
        start = int(self._mixture.offsets[row])
        length = min(int(self._mixture.lengths[row]), len(flags))
        flags[:] = False
        flags[:length] = self._trained[start : start + length]


def _targets(ids: np.ndarray, trained: np.ndarray, tasks: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "input_ids": ids,
        "labels": np.where(trained, ids, IGNORED),
        "task_ids": np.where(trained, tasks, -1),
        "row_tokens": counts.astype(np.float32),
    }
