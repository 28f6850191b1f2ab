"""Multi-task supervised fine-tuning on a mixture, with the loss of every task.

Runs as a stage of ``whetstone run FILE``, alone with ``whetstone sft FILE``, or on several processes with
``accelerate launch --config_file launch/accelerate/ddp.yaml -m pipelines.sft FILE``: the same file, the same rows.

On top of TRL's SFTTrainer: rows keep their task id, batches hold rows of like length in an order that is a pure
function of the seed (`multitask.order`), and the tasks' losses come from the forward pass that trains.
"""

from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from data_recipes.errors import UserError
from data_recipes.mixture import TRAIN, read_mixture
from data_recipes.progress import say
from data_recipes.row import Row
from eval.models import resolve_model
from pipelines.experiment import Experiment
from pipelines.multitask.order import planned_order
from pipelines.multitask.task_loss import TaskLoss
from pipelines.tokens import tokenise
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


class _InOrder(Sampler):
    def __init__(self, order: list[int]) -> None:
        self._order = order

    def __iter__(self):
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


class _Collator(DataCollatorForLanguageModeling):
    """TRL's collator, which pads ids and labels; the rows' task ids ride along."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        batch["task_ids"] = torch.tensor([example["task_id"] for example in examples])
        return batch


class MultiTaskSFTTrainer(SFTTrainer):
    """SFTTrainer that reads rows in a planned order and reports the loss of every task."""

    def __init__(self, *args: Any, tasks: list[str], order: list[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = order
        self._task_loss = TaskLoss(tasks)
        self._forward: Any = None
        # TRL computes per-token log-probabilities for its own loss and keeps them: a hook saves a second forward pass
        self.model.register_forward_hook(self._keep_forward)

    def _keep_forward(self, module: Any, inputs: Any, outputs: Any) -> None:
        self._forward = outputs

    def _get_train_sampler(self, *args: Any) -> Sampler:
        return _InOrder(self._order)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "task_id" not in self._signature_columns:
            self._signature_columns.append("task_id")

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
            logs.update(
                self._task_loss.report(lambda sums: self.accelerator.reduce(sums.float().to(device)).double().cpu())
            )
        super().log(logs, *args, **kwargs)


def train(experiment: Experiment) -> None:
    """Run or resume the SFT stage in the experiment's run folder.

    Raises:
        UserError: the mixture is missing or damaged, or nothing in it fits the model's length.
    """
    from datasets import Dataset

    section = experiment.sft
    if section is None:
        raise UserError(f"{experiment.name}: the file has no sft section")
    folder = experiment.run_dir / "sft"
    rows = read_mixture(experiment.run_dir / "mixture", TRAIN)
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
    tasks = sorted({row.task for row in rows})
    encoded = _encode(rows, tasks, tokenizer, arguments.max_length)
    order = planned_order(
        [len(row["input_ids"]) for row in encoded], *_run_length(arguments, len(encoded)), experiment.seed
    )
    arguments.num_train_epochs = 1  # the order already holds every epoch
    checkpoint = newest_checkpoint(folder, tidy=arguments.process_index == 0)
    trainer = MultiTaskSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(encoded),
        processing_class=tokenizer,
        data_collator=_Collator(pad_token_id=tokenizer.pad_token_id),
        peft_config=peft_config(section.lora),
        callbacks=[RunFolder(folder, "sft", step_of(checkpoint))],
        tasks=tasks,
        order=order,
    )
    if trainer.is_world_process_zero():
        forget_after(folder, step_of(checkpoint))
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        say(
            f"  {len(encoded)} rows of {len(tasks)} tasks, {sum(len(r['input_ids']) for r in encoded)} tokens;"
            f" {trainable / 1e6:.1f} M of {model.num_parameters() / 1e6:.1f} M parameters train in {model.dtype}"
        )
        if checkpoint:
            say(f"  resuming from step {step_of(checkpoint)}")
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save_final(trainer, tokenizer, folder, model_name)


def _run_length(arguments: SFTConfig, num_rows: int) -> tuple[int, int]:
    """Return (rows of an optimiser step over all processes, rows of the whole run)."""
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    if arguments.max_steps > 0:
        return batch, batch * arguments.max_steps
    return batch, int(num_rows * arguments.num_train_epochs)


def _encode(
    rows: list[Row], tasks: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> list[dict[str, Any]]:
    encoded = []
    for row in rows:
        if row.target is None:
            continue
        tokens = tokenise(row, tokenizer)
        if max_length is None or len(tokens["input_ids"]) <= max_length:
            encoded.append({**tokens, "task_id": tasks.index(row.task)})
    if len(encoded) < len(rows):
        say(f"  {len(rows) - len(encoded)} of {len(rows)} rows are longer than sft.max_length {max_length}: left out")
    if not encoded:
        raise UserError(f"no row of the mixture has a target within sft.max_length {max_length}; raise it")
    return encoded


if __name__ == "__main__":
    from pipelines.alone import run_alone

    run_alone("sft", train)
