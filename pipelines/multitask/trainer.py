"""TRL's SFTTrainer for many tasks: planned order, balanced loss, the tasks' losses, portable checkpoints."""

from typing import Any

import torch
from torch.utils.data import Sampler
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from pipelines import strategies
from pipelines.checkpoints import PortableCheckpoints
from pipelines.heldout import EarlyStopping, HeldoutSet, measure
from pipelines.multitask.adaptive import AdaptiveOrder
from pipelines.multitask.balance import Balancer, StepCounts, token_weights
from pipelines.multitask.batches import IGNORED
from pipelines.multitask.task_loss import TaskLoss, task_sums


class MultiTaskSFTTrainer(PortableCheckpoints, SFTTrainer):
    """SFTTrainer that reads rows in a planned order, weighs tasks, and reports the loss of every task.

    All of it comes from one forward pass: the fused head of TRL's gives every trained token's log-probability, and the
    loss is their weighted sum (`multitask.balance`).
    """

    def __init__(
        self,
        *args: Any,
        tasks: list[str],
        order: Sampler,
        balancer: Balancer,
        adaptive: AdaptiveOrder | None = None,
        heldout: dict[str, HeldoutSet] | None = None,
        stopping: EarlyStopping | None = None,
        run_id: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.run_id = run_id
        self.model_accepts_loss_kwargs = True  # losses are sums over the whole step already
        self._order, self._adaptive, self._balancer = order, adaptive, balancer
        self._heldout, self._stopping = heldout or {}, stopping
        self._tasks, self._task_loss = tasks, TaskLoss(tasks)
        self._last_step = torch.zeros(len(tasks), 3, dtype=torch.float64)  # this process's sums, for the balancer
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        add_fused_lm_head(base, outputs=("log_probs", "is_top1"))  # TRL's own also computes entropies
        # that head scores every position on a CPU; it is given those alone whose next token is trained on
        self._scored: torch.Tensor | None = None
        base.base_model.register_forward_hook(self._keep_scored)

    def _get_train_sampler(self, *args: Any) -> Sampler:
        return self._order

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if self.args.device.type == "cpu" and strategies.asked_strategy() == "fsdp2":
            strategies.shard_on_cpu(self.model)
            self.accelerator.prepare_model = lambda model, **_: model  # Accelerate would put DDP around it
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Fetch the micro-batches of a step and count, over all processes, what its loss is a mean over."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = torch.zeros(len(self._tasks), 2, dtype=torch.float64)  # tokens, examples
        for batch in batches:
            tasks, row_tokens = batch["task_ids"][:, 1:].reshape(-1), batch["row_tokens"][:, 1:].reshape(-1)
            chosen = tasks >= 0
            values = torch.stack([torch.ones_like(row_tokens), 1 / row_tokens.clamp(min=1)], dim=-1)[chosen]
            counts.index_add_(0, tasks[chosen].cpu(), values.double().cpu())
        sums = self.sum_over_processes(torch.cat([counts, self._last_step], dim=1))
        if self._balancer.adaptive:
            going_on = self._going_on()
            seen = enumerate(sums.tolist())
            losses = {n: nll / tokens for n, (_, _, nll, tokens, _) in seen if tokens and going_on[n]}
            if losses:
                self._balancer.observe(losses)
            self._last_step = torch.zeros_like(self._last_step)
        self._counts = StepCounts(sums[:, 0].tolist(), sums[:, 1].tolist())
        self._task_weights = self._balancer.weights() * self._going_on()
        return batches, sums[:, 0].sum()

    def _going_on(self) -> list[bool]:
        stopped = self._stopping.stopped if self._stopping else {}
        return [task not in stopped for task in self._tasks]

    def _keep_scored(self, backbone: Any, inputs: Any, outputs: Any) -> None:
        if self._scored is not None:
            # a prompt-learning adapter puts virtual tokens before the row's own
            hidden = outputs.last_hidden_state[:, -self._scored.shape[1] - 1 : -1]
            outputs.last_hidden_state = hidden[self._scored][None]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return this micro-batch's part of the step's loss, times the number of processes that gradients are averaged
        over; on the way each token is booked under its task."""
        labels = inputs.pop("labels")[:, 1:]
        scored = labels != IGNORED
        task_ids, row_tokens = (inputs.pop(name)[:, 1:][scored] for name in ("task_ids", "row_tokens"))
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        self._scored = scored
        try:
            outputs = model(**inputs, shift_labels=labels[scored][None], use_cache=False, fused_lm_head=True)
        finally:
            self._scored = None
        log_probs, is_top1 = outputs.log_probs[0], outputs.is_top1[0]
        sums = task_sums(len(self._tasks), task_ids, -log_probs, is_top1)
        self._task_loss.add(sums)
        if self._balancer.adaptive:
            self._last_step += sums
        losses = -log_probs
        if self.args.loss_type == "dft":  # 2508.05629, as TRL has it
            losses = losses * log_probs.exp().detach()
        weights = token_weights(self._balancer.unit, self._counts, task_ids, row_tokens, self._task_weights)
        loss = (weights * losses).sum() * self.accelerator.num_processes
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / self.current_gradient_accumulation_steps
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the trainer's metrics and the tasks'."""
        if "loss" in logs:
            report = self._task_loss.report(self.sum_over_processes)
            for number, task in enumerate(self._tasks if self._adaptive else []):
                if f"loss/{task}" in report:  # reduced: every process sees the same and changes alike
                    self._adaptive.observe(number, report[f"loss/{task}"], report[f"tokens/{task}"])
            if self._balancer.adaptive:
                weights = zip(self._tasks, self._task_weights.tolist(), strict=True)
                report |= {f"weight/{task}": weight for task, weight in weights}
            logs.update(report)
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the loss on the held-out sets, by task; log it; set aside the tasks that no longer gain."""
        metrics = measure(self, self._heldout)
        if self._stopping:
            metrics |= self._stopping.observe(self.state.global_step, metrics)
            if not any(self._going_on()):
                self.control.should_training_stop = True
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not any(self._going_on()):  # early stopping had ended the run before it was killed
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = super()._determine_best_metric(metrics, trial)
        if best:
            self.control.should_save = True
        return best

    def own_state(self) -> dict[str, Any]:
        """Return the tasks' statistics, the balance, and where adaptive shares stand."""
        return {
            "task_loss": self._task_loss.state(self.sum_over_processes),
            "last_step": self.sum_over_processes(self._last_step).tolist(),
            "balancer": self._balancer.state(),
            "stopping": self._stopping.state() if self._stopping else None,
            "shares": self._adaptive.state() if self._adaptive else None,
        }

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Go on from `own_state`."""
        first = self.is_world_process_zero()
        self._task_loss.restore(state["task_loss"], first)
        if first:
            self._last_step = torch.tensor(state["last_step"], dtype=torch.float64)
        self._balancer.restore(state["balancer"])
        if self._stopping:
            self._stopping.restore(state["stopping"])
        if self._adaptive:
            self._adaptive.restore(state["shares"])
