"""The loss of every task, from the forward pass that trains, right across processes."""

from collections.abc import Callable

import torch

SUMS = ("nll", "tokens", "hits")


def task_sums(num_tasks: int, task_ids: torch.Tensor, nll: torch.Tensor, is_top1: torch.Tensor) -> torch.Tensor:
    """Return the sums of negative log-likelihood, tokens and top-1 hits by task.

    Args:
        task_ids: (B, L) number of the task each trained token belongs to; -1 where the token is not trained on.
        nll: (B, L) negative log-likelihood in nats of each token.
        is_top1: (B, L) whether the token was the likeliest one.

    Returns:
        (T, 3) float64 on the CPU.
    """
    flat = task_ids.reshape(-1)
    chosen = flat >= 0
    values = torch.stack([nll.detach().double(), torch.ones_like(nll, dtype=torch.float64), is_top1.double()], dim=-1)
    sums = torch.zeros(num_tasks, len(SUMS), dtype=torch.float64, device=nll.device)
    return sums.index_add_(0, flat[chosen], values.reshape(-1, len(SUMS))[chosen]).cpu()


class TaskLoss:
    """Keeps `task_sums` until they are reported.

    Sums are reduced over processes, never averages of averages, so the report does not depend on how rows were batched.
    """

    def __init__(self, tasks: list[str]) -> None:
        self.tasks = tasks
        self._sums = torch.zeros(len(tasks), len(SUMS), dtype=torch.float64)
        self._seen = [0.0] * len(tasks)

    def add(self, sums: torch.Tensor) -> None:
        """Add the (T, 3) sums of a batch."""
        self._sums += sums

    def report(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """Return ``loss/TASK``, ``accuracy/TASK`` and ``tokens/TASK`` since the last report, and ``seen_tokens/TASK``
        and ``share/TASK`` of the whole run, of the tasks seen; start again from zero.

        Args:
            reduce: sums a (T, 3) tensor over processes; every process has to call this.
        """
        sums = reduce(self._sums).tolist()
        self._sums = torch.zeros_like(self._sums)
        self._seen = [seen + tokens for seen, (_, tokens, _) in zip(self._seen, sums, strict=True)]
        report = {}
        for task, seen, (nll, tokens, hits) in zip(self.tasks, self._seen, sums, strict=True):
            if tokens:
                report |= {f"loss/{task}": nll / tokens, f"accuracy/{task}": hits / tokens, f"tokens/{task}": tokens}
            if seen:
                report |= {f"seen_tokens/{task}": seen, f"share/{task}": seen / sum(self._seen)}
        return report

    def state(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, list]:
        """Return what `restore` needs, as JSON; every process has to call this."""
        return {"sums": reduce(self._sums).tolist(), "seen": self._seen}

    def restore(self, state: dict[str, list], first: bool) -> None:
        """Go on from `state`; the sums not reported yet are the `first` process's from now on."""
        sums = torch.tensor(state["sums"], dtype=torch.float64)
        self._sums = sums if first else torch.zeros_like(sums)
        self._seen = list(state["seen"])
