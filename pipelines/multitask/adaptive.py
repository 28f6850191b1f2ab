"""Shares that follow the tasks' losses: they change at window boundaries only, and every change is kept.

The policy is Online Data Mixing (2312.02406) with one deviation: a window holds rows of every task, so each task's mean
loss is seen directly and is not divided by the task's share, as it has to be where one task is drawn at a time.
Given the draws of the windows so far, the order is the same pure function as any other (`data_recipes.order`); they and
the estimates are saved with every checkpoint.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_recipes.order import Order
from data_recipes.weights import largest_remainder, online_data_mixing


class AdaptiveOrder:
    """An order that decides the draws of its next window when it is first asked for a row of it."""

    def __init__(
        self,
        sizes: Sequence[int],
        start: Sequence[float],
        window_rows: int,
        smoothing: float,
        seed: int,
        block: int = 1,
    ) -> None:
        """Begin with the shares `start`.

        Args:
            sizes: (T,) rows of each task.
            start: (T,) shares of the first window; a task with share 0 is never read.
            window_rows: rows between two changes, a multiple of `block`.
            smoothing: how much of an estimate stays at each change.
        """
        self.sizes, self.block = tuple(sizes), block
        self._window_rows, self._smoothing, self._seed = window_rows, smoothing, seed
        self._read = [task for task, share in enumerate(start) if share > 0]
        self._estimates: list[float] = []
        self._losses = np.zeros((len(self.sizes), 2))  # sum of loss x tokens, tokens; since the last change
        self._stages = [self._draws(start)]
        self._order = self._with_stages()

    def _draws(self, shares: Sequence[float]) -> tuple[int, ...]:
        blocks = largest_remainder(shares, self._window_rows // self.block)
        return tuple(count * self.block for count in blocks)

    def _with_stages(self) -> Order:
        return Order(self.sizes, tuple(self._stages), self._seed, self.block)

    def observe(self, task: int, loss: float, tokens: float) -> None:
        """Book the mean loss of `tokens` tokens of a task."""
        self._losses[task] += (loss * tokens, tokens)

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Return the rows at positions `start` to `stop`, deciding as many windows as that takes."""
        while len(self._order) < stop:
            self._change()
        return self._order.indices(start, stop)

    def _change(self) -> None:
        last = self._estimates or [0.0] * len(self._read)
        seen = [self._losses[task] for task in self._read]
        means = [total / tokens if tokens else old for (total, tokens), old in zip(seen, last, strict=True)]
        keep = self._smoothing if self._estimates else 0.0
        self._estimates = [keep * old + (1 - keep) * mean for old, mean in zip(last, means, strict=True)]
        self._losses[:] = 0
        shares = [0.0] * len(self.sizes)
        for task, share in zip(self._read, online_data_mixing(self._estimates, len(self._stages) + 1), strict=True):
            shares[task] = share
        self._stages.append(self._draws(shares))
        self._order = self._with_stages()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"stages": self._stages, "estimates": self._estimates, "losses": self._losses.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self._stages = [tuple(stage) for stage in state["stages"]]
        self._estimates = list(state["estimates"])
        self._losses = np.array(state["losses"])
        self._order = self._with_stages()
