"""Which row a training step reads: a pure function of the seed, so that nothing has to be saved to resume."""

import numpy as np

from data_recipes.mixture import epoch_order

WINDOW = 16
"""Batches among which rows are sorted by length, so that a batch holds rows of like length and little padding."""


def planned_order(lengths: list[int], batch_size: int, num_rows: int, seed: int) -> list[int]:
    """Return the row indices of a whole run, epoch after epoch, arranged in batches of like length.

    Every epoch is a permutation (union without replacement). Within windows of `WINDOW` batches rows are sorted by
    length, cut into batches, and the batches shuffled. `batch_size` counts the rows of a step on all processes, so that
    the same rows share a step whatever the number of processes.

    Args:
        lengths: tokens of each row.
        batch_size: rows of an optimiser step, over all processes and accumulation.
        num_rows: length of the order; more than ``len(lengths)`` starts further epochs.
    """
    epochs = -(-num_rows // len(lengths))
    order = [index for epoch in range(epochs) for index in epoch_order(seed, epoch, len(lengths))][:num_rows]
    arranged: list[int] = []
    for start in range(0, num_rows, WINDOW * batch_size):
        window = sorted(order[start : start + WINDOW * batch_size], key=lambda index: lengths[index])
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        tail = [batches.pop()] if len(batches[-1]) < batch_size else []
        for batch in np.random.default_rng([seed, start]).permutation(len(batches)).tolist():
            arranged += batches[batch]
        arranged += [index for batch in tail for index in batch]
    return arranged
