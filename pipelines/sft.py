"""Multi-task supervised fine-tuning on a mixture, with the loss of every task.

Runs as a stage of ``whetstone run FILE``, alone with ``whetstone sft FILE``, or on several processes with
``accelerate launch --config_file launch/accelerate/ddp.yaml -m pipelines.sft FILE``: the same file, the same rows.

On top of TRL's SFTTrainer: rows keep their task id, batches hold rows of like length in an order that is a pure
function of the seed (`multitask.order`), and the tasks' losses come from the forward pass that trains.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json
from data_recipes.mixing import Draws, draws_of, recipe_of
from data_recipes.order import Order
from data_recipes.progress import say
from data_recipes.store import Mixture
from eval.models import resolve_model
from pipelines.experiment import Experiment
from pipelines.mix import print_plan
from pipelines.multitask.adaptive import AdaptiveOrder
from pipelines.multitask.order import WINDOW, PlannedOrder
from pipelines.multitask.task_loss import TaskLoss
from pipelines.training import (
    RunFolder,
    forget_after,
    load_for_training,
    newest_checkpoint,
    peft_config,
    save_final,
    settle_launch,
    step_of,
    trl_arguments,
)

IGNORED = -100
SHARES = "shares.json"


class _Collator(DataCollatorForLanguageModeling):
    """TRL's collator, which pads ids and labels; the rows' task ids ride along."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        batch["task_ids"] = torch.tensor([example["task_id"] for example in examples])
        return batch


class MultiTaskSFTTrainer(SFTTrainer):
    """SFTTrainer that reads rows in a planned order and reports the loss of every task."""

    def __init__(
        self, *args: Any, tasks: list[str], order: Sampler, adaptive: AdaptiveOrder | None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._order, self._adaptive = order, adaptive
        self._task_loss = TaskLoss(tasks)
        self._forward: Any = None
        # TRL computes per-token log-probabilities for its own loss and keeps them: a hook saves a second forward pass
        self.model.register_forward_hook(self._keep_forward)

    def _keep_forward(self, module: Any, inputs: Any, outputs: Any) -> None:
        self._forward = outputs

    def _get_train_sampler(self, *args: Any) -> Sampler:
        return self._order

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        for column in ("index", "task_id"):
            if column not in self._signature_columns:
                self._signature_columns.append(column)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; on the way each row's share is booked under its task."""
        task_ids = inputs.pop("task_ids")
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        outputs, self._forward = self._forward, None
        self._task_loss.add(task_ids, outputs.log_probs, outputs.label_mask, outputs.is_top1)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log TRL's metrics and the tasks'."""
        if "loss" in logs:
            device = self.accelerator.device
            # float32 on the device: gloo and MPS reduce no float64 on some builds
            report = self._task_loss.report(
                lambda sums: self.accelerator.reduce(sums.float().to(device)).double().cpu()
            )
            for number, task in enumerate(self._task_loss.tasks if self._adaptive else []):
                if f"loss/{task}" in report:  # reduced: every process sees the same and changes alike
                    self._adaptive.observe(number, report[f"loss/{task}"], report[f"tokens/{task}"])
            logs.update(report)
        super().log(logs, *args, **kwargs)


def train(experiment: Experiment) -> None:
    """Run or resume the SFT stage in the experiment's run folder.

    Raises:
        UserError: the mixture is missing or damaged, or a task has no target within sft.max_length.
    """
    from datasets import Dataset

    section = experiment.sft
    if section is None:
        raise UserError(f"{experiment.name}: the file has no sft section")
    folder = experiment.run_dir / "sft"
    mixture = Mixture(experiment.run_dir / "mixture")
    model_name = resolve_model(experiment.model)
    set_seed(experiment.seed)  # the adapter is drawn before the trainer sets its own seed
    model, tokenizer = load_for_training(model_name, section)
    arguments = SFTConfig(
        **trl_arguments(
            section,
            folder,
            experiment.seed,
            remove_unused_columns=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
    )
    settle_launch(arguments)
    draws, adaptive, order = _plan(mixture, arguments, experiment.seed)
    arguments.num_train_epochs = 1  # the order already holds every epoch
    checkpoint = newest_checkpoint(folder, tidy=arguments.process_index == 0)
    if adaptive and checkpoint:
        adaptive.restore(read_json(checkpoint / SHARES))
    keep_shares = [_KeepShares(adaptive)] if adaptive else []
    trainer = MultiTaskSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"index": np.arange(len(mixture))}).with_transform(
            lambda batch: _examples(mixture, batch["index"], arguments.max_length)
        ),
        processing_class=tokenizer,
        data_collator=_Collator(pad_token_id=tokenizer.pad_token_id),
        peft_config=peft_config(section.lora),
        callbacks=[*keep_shares, RunFolder(folder, "sft", step_of(checkpoint))],  # the last marks it whole
        tasks=mixture.tasks,
        order=order,
        adaptive=adaptive,
    )
    if trainer.is_world_process_zero():
        forget_after(folder, step_of(checkpoint))
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        print_plan(mixture, draws, len(order), arguments.max_length)
        say(f"  {trainable / 1e6:.1f} M of {model.num_parameters() / 1e6:.1f} M parameters train in {model.dtype}")
        if checkpoint:
            say(f"  resuming from step {step_of(checkpoint)}")
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save_final(trainer, tokenizer, folder, model_name)


def _plan(mixture: Mixture, arguments: SFTConfig, seed: int) -> tuple[Draws, AdaptiveOrder | None, PlannedOrder]:
    """Return the draws of an epoch, the order that follows the losses where one is asked for, and that of the run."""
    mixing = recipe_of(mixture.manifest).mixing
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    block = batch if mixing.task_batches else 1
    epochs = arguments.num_train_epochs
    if arguments.max_steps > 0:
        epochs = batch * arguments.max_steps / sum(draws_of(mixture.manifest).rows)
    draws = draws_of(mixture.manifest, epochs=epochs).in_blocks(block)
    order: Order | AdaptiveOrder = draws.order(seed, block)
    # a schedule's order already holds the whole run
    num_rows = len(order) if mixing.schedule else int(len(order) * epochs)
    num_rows = batch * arguments.max_steps if arguments.max_steps > 0 else num_rows // block * block
    if mixing.adaptive:
        # whole windows of batches sorted by length: a change falls between two of them
        steps = -(-mixing.adaptive.window_steps // WINDOW) * WINDOW
        _check_adaptive(mixture, arguments, steps)
        order = AdaptiveOrder(mixture.sizes, draws.rows, steps * batch, mixing.adaptive.smoothing, seed, block)
    lengths = np.minimum(mixture.lengths, arguments.max_length or mixture.lengths.max())
    planned = PlannedOrder(order, lengths, batch, num_rows, seed, _substitutes(mixture, draws, arguments.max_length))
    return draws, order if isinstance(order, AdaptiveOrder) else None, planned


def _check_adaptive(mixture: Mixture, arguments: SFTConfig, window_steps: int) -> None:
    recipe = recipe_of(mixture.manifest)
    if recipe.mixing.max_epochs or any(t.min_draws or t.max_draws or t.max_epochs for t in recipe.tasks.values()):
        raise UserError("mixing.adaptive: shares that follow the losses keep no limits; remove the limits or adaptive")
    if arguments.logging_steps > window_steps or arguments.save_steps % arguments.logging_steps:
        raise UserError(
            f"mixing.adaptive: losses are taken every sft.logging_steps ({arguments.logging_steps:g}); choose at most"
            f" {window_steps} and a divisor of sft.save_steps ({arguments.save_steps:g}), so that a"
            " resumed run sees them all"
        )


def _substitutes(mixture: Mixture, draws: Draws, max_length: int | None) -> np.ndarray:
    """Return for each row the one to train on: itself, or another of its task where `max_length` leaves no target.

    Raises:
        UserError: a task that is read has no row with a target within `max_length`.
    """
    rows = np.arange(len(mixture))
    if max_length is None:
        return rows
    empty = mixture.targets >= np.minimum(mixture.lengths, max_length)
    for task, first, size, drawn in zip(mixture.tasks, mixture.first_rows, mixture.sizes, draws.rows, strict=True):
        of_task = np.arange(first, first + size)
        bad, good = of_task[empty[of_task]], of_task[~empty[of_task]]
        if not drawn or not len(bad):
            continue
        if not len(good):
            raise UserError(f"no row of the task {task!r} has a target within sft.max_length {max_length}; raise it")
        rows[bad] = good[np.arange(len(bad)) * 7919 % len(good)]
        say(f"  {task}: {len(bad)} of {size} rows have no target within {max_length} tokens; others take their place")
    return rows


class _KeepShares(TrainerCallback):
    """Saves the shares so far with every checkpoint."""

    def __init__(self, adaptive: AdaptiveOrder) -> None:
        self._adaptive = adaptive

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / SHARES, self._adaptive.state())


def _examples(mixture: Mixture, indices: list[int], max_length: int | None) -> dict[str, list[Any]]:
    """Return the rows at `indices` as TRL's collator takes them: ids and labels, cut at `max_length`."""
    examples: dict[str, list[Any]] = {
        "input_ids": [],
        "labels": [],
        "task_id": mixture.task_ids(np.array(indices)).tolist(),
    }
    for index in indices:
        ids = mixture.tokens[mixture.offsets[index] : mixture.offsets[index + 1]][:max_length].tolist()
        start = int(mixture.targets[index])
        examples["input_ids"].append(ids)
        examples["labels"].append([IGNORED] * min(start, len(ids)) + ids[start:])
    return examples


if __name__ == "__main__":
    from pipelines.alone import run_alone

    run_alone("sft", train)
