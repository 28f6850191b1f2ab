"""The order of a mixture as a pure function: ``(seed, epoch, position) -> (task, row)``.

Nothing is saved to resume and nothing is replayed: any position of any epoch is reached at once, and every process that
asks gets the same answer. An epoch has as many positions as the tasks have draws together. A keyed permutation (a
Feistel network with cycle walking) sends a position to a slot; slots belong to the tasks in turn, as many as each has
draws, so the shares given are exact. A task's draws are counted on through stages and epochs; they go through its rows
in golden-ratio steps, which meet every row once a pass and spread any part of a pass evenly over the source. With fewer
draws than rows the rows take turns from epoch to epoch, with more they repeat evenly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

CHUNK = 1 << 16
"""Positions worked on at once: in all: few enough for the processor caches, enough to spread the cost of a call."""
BUCKETS = 1 << 14
"""Of the table that finds a slot's task."""
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_U64 = (1 << 64) - 1


def _mixed(*parts: int) -> int:
    """Return a 64-bit hash of small integers (splitmix64, one part after another)."""
    state = 0
    for part in parts:
        state = (state + part + _MULTIPLIERS[0]) & _U64
        state = ((state ^ (state >> 30)) * _MULTIPLIERS[1]) & _U64
        state = ((state ^ (state >> 27)) * _MULTIPLIERS[2]) & _U64
        state ^= state >> 31
    return state


def permute(indices: np.ndarray, size: int, *key: int) -> np.ndarray:
    """Send each index below `size` to another one: a bijection that only `key` decides, without a table.

    A Feistel network over the next power of two, walked until the image is below `size`.

    Args:
        indices: (N,) integers in ``range(size)``.
        size: at most 2**62.
        key: small integers, such as a seed and an epoch.

    Returns:
        (N,) integers of `indices`' type.
    """
    bits = max(2, (size - 1).bit_length())
    # 32-bit arithmetic is twice as fast and enough below 2**31
    word = np.uint32 if bits < 32 else np.uint64
    width = 32 if bits < 32 else 64
    low = bits // 2
    high = bits - low
    num_rounds = 6 if bits >= 20 else 16  # halves of a few bits mix slowly
    keys = [_mixed(*key, number) & ((1 << width) - 1) | 1 for number in range(2 * num_rounds)]
    values = indices.astype(word)
    _rounds(values, low, high, width, keys)
    if size == 1 << bits:
        return values.astype(indices.dtype)
    outside = np.flatnonzero(values >= size)
    while outside.size:
        walked = values[outside]
        _rounds(walked, low, high, width, keys)
        values[outside] = walked
        outside = outside[walked >= size]
    return values.astype(indices.dtype)


def _rounds(values: np.ndarray, low: int, high: int, width: int, keys: list[int]) -> None:
    word = values.dtype.type
    left, right = values >> word(low), values & word((1 << low) - 1)
    scratch = np.empty_like(values)
    for number in range(len(keys) // 2):
        source, target, bits = (right, left, high) if number % 2 == 0 else (left, right, low)
        np.add(source, word(keys[2 * number]), out=scratch)
        np.multiply(scratch, word(keys[2 * number + 1]), out=scratch)
        scratch ^= scratch >> word(width // 2)
        np.multiply(scratch, word(0x85EBCA6B), out=scratch)
        np.right_shift(scratch, word(width - bits), out=scratch)
        target ^= scratch
    np.left_shift(left, word(low), out=values)
    values |= right


@dataclass(frozen=True)
class Order:
    """The order in which a mixture's rows are read."""

    sizes: tuple[int, ...]
    """Rows of each task."""
    stages: tuple[tuple[int, ...], ...]
    """Draws of each task in each stage of an epoch; one stage unless the shares change on the way."""
    seed: int
    block: int = 1
    """Rows of one task in a row; more than 1 makes task-homogeneous batches (batch size times processes)."""

    def __post_init__(self) -> None:
        if any(draws % self.block for stage in self.stages for draws in stage):
            raise ValueError(f"draws must be multiples of the block of {self.block} rows")
        if any(draws and not size for stage in self.stages for draws, size in zip(stage, self.sizes, strict=True)):
            raise ValueError("a task without rows has draws")

    def __len__(self) -> int:
        """Positions of an epoch."""
        return int(self._stage_starts[-1])

    @cached_property
    def _draws(self) -> np.ndarray:  # (stages, tasks)
        return np.array(self.stages, dtype=np.int64).reshape(len(self.stages), len(self.sizes))

    @cached_property
    def _stage_starts(self) -> np.ndarray:  # (stages + 1,) first position of each stage
        return np.concatenate([[0], np.cumsum(self._draws.sum(axis=1))])

    @cached_property
    def _drawn_before(self) -> np.ndarray:  # (stages + 1, tasks) draws of an epoch before each stage
        return np.vstack([np.zeros(len(self.sizes), np.int64), np.cumsum(self._draws, axis=0)])

    @cached_property
    def _first_rows(self) -> np.ndarray:  # (tasks,) index of each task's first row among all rows
        return np.concatenate([[0], np.cumsum(self.sizes)])[:-1].astype(np.int64)

    def at(self, epoch: int, positions: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tasks and the rows within their task at `positions` of `epoch`.

        Args:
            positions: (N,) integers in ``range(len(self))``.

        Returns:
            (N,) task numbers and (N,) row numbers.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"positions of an epoch are 0 to {len(self) - 1}")
        tasks = np.empty(positions.shape, np.int64)
        rows = np.empty(positions.shape, np.int64)
        stage_of = np.searchsorted(self._stage_starts, positions, side="right") - 1
        for stage in np.unique(stage_of).tolist():
            chosen = slice(None) if len(self.stages) == 1 else stage_of == stage
            tasks[chosen], rows[chosen] = self._in_stage(epoch, stage, positions[chosen] - self._stage_starts[stage])
        return tasks, rows

    def _in_stage(self, epoch: int, stage: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        draws = self._draws[stage]
        if self.block > 1:
            slots = permute(positions // self.block, int(draws.sum()) // self.block, self.seed, epoch, stage)
            slots = slots * self.block + positions % self.block
        else:
            slots = permute(positions, int(draws.sum()), self.seed, epoch, stage)
        tasks = self._tasks_of(stage, slots)
        # the draws of a task that come before this stage are counted on from epoch to epoch
        drawn = epoch * self._drawn_before[-1] + self._drawn_before[stage]
        numbers = slots + (drawn - (np.cumsum(draws) - draws))[tasks]
        sizes = np.array(self.sizes, np.int64)
        if len(self.stages) == 1 and np.array_equal(draws, sizes):
            return tasks, numbers - drawn[tasks]  # every row once: the slot is already a random row of its task
        sizes = np.maximum(sizes, 1)[tasks]
        return tasks, (numbers % sizes * self._steps[tasks] + self._offsets[tasks]) % sizes

    @cached_property
    def _offsets(self) -> np.ndarray:  # (tasks,) the row of each task's first draw
        return np.array([_mixed(self.seed, task) % max(size, 1) for task, size in enumerate(self.sizes)], np.int64)

    @cached_property
    def _steps(self) -> np.ndarray:  # (tasks,) nearest to the golden ratio of the size and prime to it
        return np.array([_golden_step(size) for size in self.sizes], np.int64)

    @cached_property
    def _tables(self) -> list[tuple[np.ndarray, int, np.ndarray]]:
        tables = []
        for draws in self._draws:
            ends = np.cumsum(draws)
            shift = max(0, (int(ends[-1]) // BUCKETS).bit_length())
            firsts = np.arange((int(ends[-1]) >> shift) + 1) << shift
            tasks = np.searchsorted(ends, firsts, side="right")
            mixed = tasks != np.searchsorted(ends, firsts + (1 << shift) - 1, side="right")
            tables.append((np.where(mixed, -1, tasks), shift, ends))
        return tables

    def _tasks_of(self, stage: int, slots: np.ndarray) -> np.ndarray:
        """Return the task of each slot: from a table, and by search where a bucket of it holds slots of several
        tasks."""
        table, shift, ends = self._tables[stage]
        tasks = table[slots >> shift]
        unsure = np.flatnonzero(tasks < 0)
        tasks[unsure] = np.searchsorted(ends, slots[unsure], side="right")
        return tasks

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Return the mixture's row indices at positions `start` to `stop` of training, epoch after epoch.

        Returns:
            (stop - start,) indices into all rows, the tasks' rows one task after another.
        """
        result = np.empty(max(stop - start, 0), np.int64)
        for first in range(start, stop, CHUNK):
            positions = np.arange(first, min(first + CHUNK, stop))
            epochs = positions // len(self)
            for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
                low, high = np.searchsorted(epochs, [epoch, epoch + 1])
                tasks, rows = self.at(epoch, positions[low:high] - epoch * len(self))
                result[first - start + low : first - start + high] = self._first_rows[tasks] + rows
        return result


def _golden_step(size: int) -> int:
    step = max(1, round(size * (math.sqrt(5) - 1) / 2))
    return next(near for far in range(size + 1) for near in (step + far, step - far) if math.gcd(near, size) == 1)
