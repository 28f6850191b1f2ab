"""Which row a training step reads: the mixture's order, arranged in batches of like length. A pure function of the
seed.

Within windows of `WINDOW` batches rows are sorted by length, cut into batches, and the batches shuffled. A batch counts
the rows of a step on all processes, so that the same rows share a step whatever the number of processes.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from data_recipes.order import Order
from pipelines.multitask.adaptive import AdaptiveOrder

WINDOW = 16
"""Batches among which rows are sorted by length, so that a batch holds rows of like length and little padding."""


class PlannedOrder(Sampler[int]):
    """The row indices of a whole run, window after window; nothing is computed before it is reached."""

    def __init__(
        self,
        order: Order | AdaptiveOrder,
        lengths: np.ndarray,
        batch_size: int,
        num_rows: int,
        seed: int,
        substitutes: np.ndarray | None = None,
    ) -> None:
        """Plan a run.

        Args:
            order: of the mixture; more rows than it has start further epochs. Its block has to be 1 or `batch_size`.
            lengths: (N,) tokens of each row.
            batch_size: rows of an optimiser step, over all processes and accumulation.
            num_rows: rows of the whole run.
            substitutes: (N,) the row to read instead of each row; absent: itself.
        """
        self._order, self._lengths, self._batch, self._num_rows, self._seed = order, lengths, batch_size, num_rows, seed
        self._substitutes = substitutes
        self.adaptive = order if isinstance(order, AdaptiveOrder) else None
        """The order below, where its shares follow the losses."""

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self._num_rows, WINDOW * self._batch):
            yield from self.window(start).tolist()

    def window(self, start: int) -> np.ndarray:
        """Return the rows of the window that begins at position `start`."""
        rows = self._order.indices(start, min(start + WINDOW * self._batch, self._num_rows))
        rows = rows if self._substitutes is None else self._substitutes[rows]
        keys = [self._lengths[rows]]
        if self._order.block > 1:  # batches of one task: its rows stay together
            keys.append(np.searchsorted(np.cumsum(self._order.sizes), rows, side="right"))
        rows = rows[np.lexsort(keys)]
        whole = len(rows) // self._batch
        batches = rows[: whole * self._batch].reshape(whole, self._batch)
        batches = batches[np.random.default_rng([self._seed, start]).permutation(whole)]
        return np.concatenate([batches.reshape(-1), rows[whole * self._batch :]])
