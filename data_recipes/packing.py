"""Rows into sequences of a fixed length that still know their rows and tasks; no row sees another.

Rows of a window of the mixture's order are put into sequences by best fit, longest first. A sequence's
`position_ids` begin
at 0 with each row, which is what the attention of transformers goes by: without an attention mask it lets a token see
only the tokens since the last position 0. Padding is a row of its own at the end. The first token of a row is no
target: nothing before it belongs to it.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from data_recipes.order import Order
from data_recipes.store import Mixture

PADDING_SEGMENT = -1


def best_fit(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Put items into as few bins of `capacity` as best fit, longest first, finds; return each bin's item numbers.

    Items longer than `capacity` count as `capacity`: they are cut. Bins come in the order in which they were opened and
    items in a bin in the order they were put there.
    """
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (space left, bin), sorted
    for item in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = min(int(lengths[item]), capacity)
        place = bisect_left(free, (length, -1))
        if place == len(free):
            bins.append([item])
            insort(free, (capacity - length, len(bins) - 1))
        else:
            space, number = free.pop(place)
            bins[number].append(item)
            insort(free, (space - length, number))
    return bins


def packs(mixture: Mixture, order: Order, start: int, stop: int, capacity: int) -> list[np.ndarray]:
    """Return the row indices of each sequence for positions `start` to `stop` of training, in the order of their
    rows."""
    rows = order.indices(start, stop)
    found = best_fit(mixture.lengths[rows], capacity)
    found.sort(key=min)  # near the mixture's order, not by length
    return [rows[np.sort(members)] for members in found]


def pack_batch(
    mixture: Mixture, sequences: Sequence[np.ndarray], capacity: int, padding: int = 0
) -> dict[str, np.ndarray]:
    """Return the tensors of some sequences.

    Args:
        sequences: B arrays of row indices, as `packs` returns them.
        capacity: L, tokens of a sequence.
        padding: token id to pad with.

    Returns:
        (B, L) arrays: ``input_ids``; ``position_ids``, from 0 in each row; ``trained``, bool; ``segment_ids``, the
        number of the row in its sequence, and ``task_ids``, the number of its task, both -1 on padding.
    """
    shape = (len(sequences), capacity)
    ids = np.full(shape, padding, np.int64)
    positions = np.zeros(shape, np.int64)
    segments = np.full(shape, PADDING_SEGMENT, np.int64)
    tasks = np.full(shape, PADDING_SEGMENT, np.int64)
    trained = np.zeros(shape, bool)
    for line, rows in enumerate(sequences):
        place = 0
        for segment, row in enumerate(rows.tolist()):
            begin = int(mixture.offsets[row])
            length = min(int(mixture.offsets[row + 1]) - begin, capacity - place)
            span = slice(place, place + length)
            ids[line, span] = mixture.tokens[begin : begin + length]
            positions[line, span] = np.arange(length)
            segments[line, span] = segment
            trained[line, place + max(int(mixture.targets[row]), 1) : place + length] = True
            place += length
        tasks[line, :place] = mixture.task_ids(rows)[segments[line, :place]]
        positions[line, place:] = np.arange(capacity - place)
    return {"input_ids": ids, "position_ids": positions, "trained": trained, "segment_ids": segments, "task_ids": tasks}
