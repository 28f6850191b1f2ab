"""Means by task, right across processes: sums and counts are reduced, never averages of averages."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class TaskMetrics:
    """Keeps sums by task and metric until they are reported."""

    def __init__(self, tasks: Sequence[str], names: Sequence[str]) -> None:
        self.tasks, self.names = list(tasks), list(names)
        self._sums = torch.zeros(len(tasks), len(names), 2, dtype=torch.float64)

    def add(self, name: str, task_ids: Tensor, values: Tensor, counts: Tensor | None = None) -> None:
        """Add values, each of the task beside it.

        Args:
            task_ids: (n,) whole numbers.
            values: (n,) numbers, or sums of `counts` numbers; NaN is left out.
        """
        counts = torch.ones_like(values) if counts is None else counts
        pairs = torch.stack([values, counts], dim=-1).detach().double().cpu()
        found = ~pairs[:, 0].isnan()
        self._sums[:, self.names.index(name)].index_add_(0, task_ids.cpu()[found], pairs[found])

    def report(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return ``NAME/TASK`` since the last report, of what was seen, and start again from zero.

        Args:
            reduce: sums a tensor over processes; every process has to call this.
        """
        sums = reduce(self._sums).tolist()
        self._sums = torch.zeros_like(self._sums)
        return {
            f"{name}/{task}": total / count
            for task, of_task in zip(self.tasks, sums, strict=True)
            for name, (total, count) in zip(self.names, of_task, strict=True)
            if count
        }

    def state(self, reduce: Callable[[Tensor], Tensor]) -> list:
        """Return what `restore` needs, as JSON; every process has to call this."""
        return reduce(self._sums).tolist()

    def restore(self, state: list, first: bool) -> None:
        """Go on from `state`; what was not reported yet is the `first` process's from now on."""
        sums = torch.tensor(state, dtype=torch.float64)
        self._sums = sums if first else torch.zeros_like(sums)
