"""Multi-task supervised fine-tuning on a mixture, with the loss of every task.

Runs as a stage of ``whetstone run FILE``, alone with ``whetstone sft FILE``, or on several processes with
``accelerate launch --config_file launch/accelerate/ddp.yaml -m pipelines.sft FILE``: the same file, the same rows.

On top of TRL's SFTTrainer (`multitask.trainer`): rows keep their task id, batches hold rows of like length or packed
ones in an order that is a pure function of the seed, and any strategy goes on from any other's checkpoints.
"""

import math
import os
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from transformers import PrinterCallback, set_seed
from trl import SFTConfig

from data_recipes.errors import UserError
from data_recipes.files import fingerprint
from data_recipes.mixing import Draws, draws_of, recipe_of
from data_recipes.order import Order
from data_recipes.progress import say
from data_recipes.store import Mixture
from eval.models import resolve_model
from pipelines.checkpoints import agreed_checkpoint, step_of
from pipelines.experiment import Experiment, SFTSection
from pipelines.generation import GenerationAtSteps, questions
from pipelines.heldout import MIXTURE_SET, EarlyStopping, HeldoutSet, best_metric, heldout_sets
from pipelines.mix import print_plan
from pipelines.multitask.adaptive import AdaptiveOrder
from pipelines.multitask.balance import make_balancer
from pipelines.multitask.batches import Batches, PackedOrder
from pipelines.multitask.order import WINDOW, PlannedOrder
from pipelines.multitask.trainer import MultiTaskSFTTrainer
from pipelines.preemption import SaveOnSigterm
from pipelines.tokens import ChatTokeniser
from pipelines.training import (
    RunFolder,
    batch_arguments,
    forget_after,
    load_for_training,
    load_tokenizer,
    peft_config,
    run_training,
    settle_launch,
    trl_arguments,
)


def train(experiment: Experiment) -> None:
    """Run or resume the SFT stage in the experiment's run folder.

    Raises:
        UserError: the mixture is missing or damaged, a task has no target within sft.max_length, keys do not go
            together, or the launcher runs another strategy than was asked for.
        Preempted: SIGTERM; a checkpoint was saved.
    """
    from datasets import Dataset

    section = experiment.sft
    if section is None:
        raise UserError(f"{experiment.name}: the file has no sft section")
    preemption = SaveOnSigterm()  # before what takes long: the launchers ignore SIGTERM until somebody takes it
    folder = experiment.run_dir / "sft"
    mixture = Mixture(experiment.run_dir / "mixture")
    model_name = resolve_model(experiment.model)
    arguments = _arguments(experiment, section)
    draws, order = plan(mixture, arguments, experiment.seed, section.packing)
    tokeniser = ChatTokeniser(model_name)
    heldout, metric = _heldout(section, arguments, mixture, tokeniser)
    asked = questions(experiment, tokeniser.tokenizer) if section.generate_at else []
    arguments.num_train_epochs, arguments.metric_for_best_model = 1, metric  # the order already holds every epoch
    arguments.greater_is_better = False
    run_id = fingerprint([experiment.fingerprint_of("sft"), mixture.manifest["files"]])
    checkpoint = agreed_checkpoint(folder, run_id, arguments)
    set_seed(experiment.seed)  # the adapter is drawn before the trainer sets its own seed
    model, tokenizer = load_for_training(model_name, section), load_tokenizer(model_name)
    adaptive = getattr(order, "adaptive", None)
    sequences = order.sequences if isinstance(order, PackedOrder) else None
    trained = _assistant_tokens(mixture, tokeniser) if section.assistant_only_loss else None
    trainer = MultiTaskSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"index": np.arange(len(sequences or mixture))}),
        eval_dataset=Dataset.from_dict({"index": np.arange(1)}) if heldout else None,  # `evaluate` has its own
        processing_class=tokenizer,
        data_collator=Batches(mixture, arguments.max_length, tokenizer.pad_token_id, sequences, trained),
        peft_config=peft_config(section.lora),
        callbacks=[RunFolder(folder, "sft", experiment.name, checkpoint), preemption],
        tasks=mixture.tasks,
        order=order,
        balancer=make_balancer(section.balance, mixture.tasks),
        adaptive=adaptive,
        heldout=heldout,
        stopping=EarlyStopping(section.patience) if section.patience else None,
        run_id=run_id,
    )
    trainer.remove_callback(PrinterCallback)
    if asked:
        generation = GenerationAtSteps(experiment, asked, model_name, preemption)
        generation.trainer = trainer
        trainer.add_callback(generation)
    if trainer.is_world_process_zero():
        forget_after(folder, step_of(checkpoint))
        trainable = sum(getattr(p, "ds_numel", p.numel()) for p in trainer.model.parameters() if p.requires_grad)
        print_plan(mixture, draws, _rows_read(order, mixture), arguments.max_length)
        say(f"  {trainable / 1e6:.1f} M parameters train in {model.dtype}")
    run_training(trainer, folder, checkpoint, preemption, model_name, tokenizer, section.dtype)


def _arguments(experiment: Experiment, section: SFTSection) -> SFTConfig:
    folder = experiment.run_dir / "sft"
    ours = {
        **batch_arguments(section, int(os.environ.get("WORLD_SIZE", "1"))),
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    arguments = SFTConfig(**trl_arguments(section, folder, experiment.seed, **ours))
    settle_launch(arguments)
    for key in ("eval_strategy", "save_strategy"):
        if getattr(arguments, key).value == "epoch":
            raise UserError(f"sft.{key}: the order makes a run one epoch; use steps, and {key.split('_')[0]}_steps")
    if arguments.save_strategy.value == "best":
        raise UserError("sft.save_strategy: the best checkpoint is kept by sft.best; use steps, and best: mean")
    if arguments.loss_type not in ("nll", "dft", "chunked_nll"):
        raise UserError(f"sft.loss_type: {arguments.loss_type!r} is not one that tasks are weighed in; use nll or dft")
    return arguments


def _heldout(
    section: SFTSection, arguments: SFTConfig, mixture: Mixture, tokeniser: ChatTokeniser
) -> tuple[dict[str, HeldoutSet], str | None]:
    """Return the held-out sets, and the metric by which the best checkpoint is chosen.

    Raises:
        UserError: keys ask for held-out losses that are not measured.
    """
    if arguments.eval_strategy == "no":
        needing = next((key for key in ("eval_sets", "best", "patience") if getattr(section, key)), None)
        if needing:
            raise UserError(f"sft.{needing} needs held-out losses; set eval_strategy: steps and eval_steps")
        return {}, None
    size = arguments.per_device_eval_batch_size
    sets = heldout_sets(mixture, section.eval_sets, tokeniser, arguments.max_length, size)
    if section.patience and MIXTURE_SET not in sets:
        raise UserError("sft.patience: nothing is held out of the mixture; give tasks of the recipe heldout_rows")
    return sets, best_metric(section.best, sets)


def _assistant_tokens(mixture: Mixture, tokeniser: ChatTokeniser) -> np.ndarray:
    """Return which of the mixture's tokens an assistant wrote, in whatever turn."""
    flags = np.zeros(len(mixture.tokens), bool)
    for number, row in enumerate(mixture.rows()):
        start, end = mixture.offsets[number : number + 2].tolist()
        if sum(turn.role == "assistant" for turn in row.messages) > 1:
            flags[start:end] = tokeniser.assistant_flags(row, end - start)
        else:
            flags[start + int(mixture.targets[number]) : end] = True
    return flags


def _rows_read(order: Sampler, mixture: Mixture) -> int:
    return sum(map(len, order.sequences)) if isinstance(order, PackedOrder) else len(order)  # type: ignore[arg-type]


def plan(
    mixture: Mixture, arguments: Any, seed: int, packing: bool = False
) -> tuple[Draws, PlannedOrder | PackedOrder]:
    """Return the draws of an epoch and the order of a whole run, in which every step is full.

    Args:
        arguments: batch sizes, epochs or steps, and max_length, as TRL names them.

    Raises:
        UserError: a task has no target within max_length, or the recipe's mixing does not go with the settings.
    """
    mixing = recipe_of(mixture.manifest).mixing
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    block = batch if mixing.task_batches else 1
    epochs, max_steps = arguments.num_train_epochs, max(arguments.max_steps, 0)
    if packing:
        _check_packing(mixture, arguments)
    if max_steps:
        per_epoch = sum(draws_of(mixture.manifest).rows)
        rows_a_step = batch
        if packing:  # about as many rows as fit
            rows_a_step = max(1, int(batch * arguments.max_length / max(1.0, float(mixture.lengths.mean()))))
        epochs = rows_a_step * max_steps / per_epoch
    draws = draws_of(mixture.manifest, epochs=epochs).in_blocks(block)
    order: Order | AdaptiveOrder = draws.order(seed, block)
    # a schedule's order already holds the whole run
    num_rows = len(order) if mixing.schedule else round(len(order) * epochs)
    substitutes = _substitutes(mixture, draws, arguments.max_length)
    if packing:
        given = (mixture, order, arguments.max_length, batch, num_rows, max_steps or None, substitutes)
        return draws, PackedOrder(*given)
    num_rows = batch * max_steps if max_steps else math.ceil(num_rows / batch) * batch
    if mixing.adaptive:
        # whole windows of batches sorted by length: a change falls between two of them
        steps = -(-mixing.adaptive.window_steps // WINDOW) * WINDOW
        _check_adaptive(mixture, arguments, steps)
        order = AdaptiveOrder(mixture.sizes, draws.rows, steps * batch, mixing.adaptive.smoothing, seed, block)
    lengths = np.minimum(mixture.lengths, arguments.max_length or mixture.lengths.max())
    return draws, PlannedOrder(order, lengths, batch, num_rows, seed, substitutes)


def _check_packing(mixture: Mixture, arguments: Any) -> None:
    mixing = recipe_of(mixture.manifest).mixing
    if arguments.max_length is None:
        raise UserError("sft.packing: sequences need a length; set sft.max_length")
    if mixing.adaptive or mixing.task_batches:
        name = "adaptive" if mixing.adaptive else "task_batches"
        raise UserError(f"sft.packing: sequences hold rows of several tasks; leave out packing or mixing.{name}")


def _check_adaptive(mixture: Mixture, arguments: Any, window_steps: int) -> None:
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


if __name__ == "__main__":
    from pipelines.alone import run_alone

    run_alone("sft", train)
