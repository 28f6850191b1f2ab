"""The loss of every task, from the forward pass that trains, right across processes."""

import torch


class TaskLoss:
    """Sums negative log-likelihood, tokens and top-1 hits by task until they are reported.

    Sums are reduced over processes, never averages of averages, so the report does not depend on how rows were batched.
    """

    def __init__(self, tasks: list[str]) -> None:
        self.tasks = tasks
        self._sums = torch.zeros(len(tasks), 3, dtype=torch.float64)  # nll, tokens, hits

    def add(
        self, task_ids: torch.Tensor, log_probs: torch.Tensor, label_mask: torch.Tensor, is_top1: torch.Tensor
    ) -> None:
        """Count a batch.

        Args:
            task_ids: (B,) index into `tasks` of each row.
            log_probs: (B, L) log-probability in nats of each label.
            label_mask: (B, L) 1 where the label is trained on.
            is_top1: (B, L) 1 where the label was the likeliest token.
        """
        mask = label_mask.detach().double()
        rows = torch.stack(
            [-(log_probs.detach().double() * mask).sum(1), mask.sum(1), (is_top1.detach().double() * mask).sum(1)],
            dim=1,
        )
        self._sums.index_add_(0, task_ids.cpu(), rows.cpu())

    def report(self, reduce) -> dict[str, float]:
        """Return ``loss/TASK``, ``accuracy/TASK`` and ``tokens/TASK`` of the tasks seen, and start again from zero.

        Args:
            reduce: sums a (T, 3) tensor over processes; every process has to call this.
        """
        sums = reduce(self._sums)
        self._sums = torch.zeros_like(self._sums)
        report = {}
        for task, (nll, tokens, hits) in zip(self.tasks, sums.tolist(), strict=True):
            if tokens:
                report |= {f"loss/{task}": nll / tokens, f"accuracy/{task}": hits / tokens, f"tokens/{task}": tokens}
        return report
