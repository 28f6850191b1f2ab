"""TRL's RewardTrainer for many tasks: planned order, another loss, metrics by task, portable checkpoints."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from trl import RewardTrainer

from pipelines.checkpoints import PortableCheckpoints
from pipelines.heldout import MIXTURE_SET
from pipelines.ranking.pairs import Pair, PairBatches
from pipelines.rl.task_metrics import TaskMetrics

METRICS = ("loss", "accuracy", "margin", "mean_reward")


class MultiTaskRewardTrainer(PortableCheckpoints, RewardTrainer):
    """RewardTrainer that reads pairs in a planned order and reports every task.

    The loss is TRL's mean over the pairs of a micro-batch, with TRL's centring of rewards where it is asked for.

    Args:
        pairs: of the data set's ``index`` column.
        heldout: pairs to measure on.
        loss_of: from (B,) margins to (B,) losses.
    """

    def __init__(
        self,
        *args: Any,
        pairs: Sequence[Pair],
        heldout: Sequence[Pair],
        order: Sampler,
        loss_of: Callable[[Tensor], Tensor],
        run_id: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.run_id = run_id
        self._order, self._heldout, self._loss_of = order, heldout, loss_of
        self._by_task = TaskMetrics(list(dict.fromkeys(pair.task for pair in pairs)), METRICS)
        padding = self.processing_class.pad_token_id
        multiple_of = self.args.pad_to_multiple_of
        self._batches = PairBatches(pairs, self._by_task.tasks, padding, multiple_of)
        self.data_collator = self._batches
        if not self.is_deepspeed_enabled:  # it has float32 masters, and wants one type
            for name, parameter in self.model.named_parameters():
                if "modules_to_save" in name:  # the head trains in float32 as adapters do
                    parameter.data = parameter.data.float()

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset  # the pairs are tokenised already

    def _get_train_sampler(self, *args: Any) -> Sampler:
        return self._order

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's loss; on the way each pair is booked under its task."""
        task_ids = inputs.pop("task_ids")
        outputs = model(**inputs, use_cache=False)
        chosen, rejected = outputs.logits[:, 0].float().chunk(2)
        losses = self._loss_of(chosen - rejected)
        loss = losses.mean()
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
        self._book(self._by_task, task_ids, losses, chosen, rejected)
        return (loss, outputs) if return_outputs else loss

    def _book(self, metrics: TaskMetrics, task_ids: Tensor, losses: Tensor, chosen: Tensor, rejected: Tensor) -> None:
        metrics.add("loss", task_ids, losses)
        metrics.add("accuracy", task_ids, (chosen > rejected).float())
        metrics.add("margin", task_ids, chosen - rejected)
        metrics.add("mean_reward", task_ids, (chosen + rejected) / 2)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the trainer's metrics and the tasks'."""
        if "loss" in logs:
            logs.update(self._by_task.report(self.sum_over_processes))
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the held-out pairs by task, and log it."""
        rewards = self.rewards_of(self._heldout)
        tasks = sorted({pair.task for pair in self._heldout})
        task_ids = torch.tensor([tasks.index(pair.task) for pair in self._heldout])
        found = TaskMetrics(tasks, METRICS)
        self._book(found, task_ids, self._loss_of(rewards[:, 0] - rewards[:, 1]), rewards[:, 0], rewards[:, 1])
        means = found.report(lambda sums: sums)  # every process has all the rewards
        metrics = {f"eval_{MIXTURE_SET}/{name}": value for name, value in means.items()}
        losses = [value for name, value in means.items() if name.startswith("loss/")]
        metrics[f"eval_{MIXTURE_SET}/loss"] = sum(losses) / len(losses)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def rewards_of(self, pairs: Sequence[Pair]) -> Tensor:
        """Return (n, 2) float64 rewards of chosen and rejected on every process; each computes a part.

        Every process runs as many forward passes as the others: ZeRO-3 and FSDP2 gather weights in each.
        """
        model, found = self.model_wrapped, torch.zeros(len(pairs), 2, dtype=torch.float64)
        size, rank = self.accelerator.num_processes, self.accelerator.process_index
        by_length = sorted(range(len(pairs)), key=lambda number: pairs[number].length)
        step = self.args.per_device_eval_batch_size
        batches = [by_length[start : start + step] for start in range(0, len(pairs), step)]
        was_training = model.training
        model.eval()
        for first in range(0, len(batches), size):
            numbers = batches[min(first + rank, len(batches) - 1)]
            batch = self._batches.batch([pairs[number] for number in numbers])
            batch.pop("task_ids")
            inputs = {key: value.to(self.args.device) for key, value in batch.items()}
            with torch.no_grad(), self.compute_loss_context_manager():
                logits = model(**inputs, use_cache=False).logits[:, 0]
            if first + rank < len(batches):
                found[numbers] = torch.stack(logits.double().cpu().chunk(2), dim=1)
        model.train(was_training)
        return self.sum_over_processes(found)

    def own_state(self) -> dict[str, Any]:
        """Return the figures that were not logged yet."""
        return {"by_task": self._by_task.state(self.sum_over_processes)}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Go on from `own_state`."""
        self._by_task.restore(state["by_task"], self.is_world_process_zero())
