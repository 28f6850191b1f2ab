"""A reward model from the mixture's preference rows: one scalar for a conversation, higher for the better answer.

Runs as a stage of ``whetstone run FILE``, alone with ``whetstone reward_model FILE``, or on several processes with
``accelerate launch --config_file launch/accelerate/ddp.yaml -m pipelines.reward_model FILE``. Starts from the SFT
stage's model where there is one, else from the experiment's model; the head is drawn from the experiment's seed.

TRL's RewardTrainer optimises. Ours (`ranking.trainer`): the recipe's shares and batches of like length, the focal loss,
metrics by task, checkpoints that any strategy goes on from. Once trained, the held-out pairs are ranked:

=================  ==========================================================================================
``model/``         a sequence classifier of one label, for `eval.reward_models.RewardModel` and transformers
``adapter/``       with lora: the adapter and the head
``heldout.jsonl``  the rewards of each held-out pair
``results.json``   accuracy by task with intervals, calibration; drawn on ``progress.html``
=================  ==========================================================================================
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, set_seed
from trl import RewardConfig

from data_recipes.errors import UserError
from data_recipes.files import fingerprint, write_atomically, write_json
from data_recipes.progress import say
from data_recipes.store import Mixture
from eval.models import resolve_model
from pipelines.checkpoints import agreed_checkpoint, step_of
from pipelines.experiment import Experiment, RewardModelSection
from pipelines.preemption import SaveOnSigterm
from pipelines.ranking.losses import focal_ranking_loss, ranking_loss
from pipelines.ranking.pairs import Pair, order_of, read_pairs
from pipelines.ranking.report import results_of
from pipelines.ranking.trainer import MultiTaskRewardTrainer
from pipelines.training import (
    RunFolder,
    forget_after,
    load_for_training,
    load_tokenizer,
    peft_config,
    run_training,
    settle_launch,
    trl_arguments,
)
from pipelines.training_page import RESULTS, write_page


def train(experiment: Experiment) -> None:
    """Run or resume the reward_model stage in the experiment's run folder.

    Raises:
        UserError: the mixture or the SFT model is missing, the mixture has no preference rows of a task, or keys do not
            go together.
        Preempted: SIGTERM; a checkpoint was saved.
    """
    from datasets import Dataset

    section = experiment.reward_model
    if section is None:
        raise UserError(f"{experiment.name}: the file has no reward_model section")
    preemption = SaveOnSigterm()  # before what takes long: the launchers ignore SIGTERM until somebody takes it
    folder = experiment.run_dir / "reward_model"
    mixture = Mixture(experiment.run_dir / "mixture")
    base = resolve_model(experiment.starting_model)
    arguments = _arguments(experiment, section)
    tokenizer = load_tokenizer(base)
    if arguments.pad_token:
        tokenizer.pad_token = arguments.pad_token
    pairs, heldout = read_pairs(mixture, section.tasks, tokenizer, arguments.max_length)
    if not heldout and arguments.eval_strategy != "no":
        raise UserError(
            "reward_model.eval_strategy: no preference rows are held out; give tasks of the recipe heldout_rows, or"
            " leave it out"
        )
    order = order_of(mixture, pairs, arguments, experiment.seed)
    arguments.num_train_epochs = 1  # the order holds them all
    run_id = fingerprint([experiment.fingerprint_of("reward_model"), mixture.manifest["files"]])
    checkpoint = agreed_checkpoint(folder, run_id, arguments)
    load = partial(scoring_model, padding=tokenizer.pad_token_id)
    set_seed(experiment.seed)  # the head is drawn here
    model = load_for_training(base, section, load)
    trainer = MultiTaskRewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"index": np.arange(len(pairs))}),
        eval_dataset=Dataset.from_dict({"index": np.arange(1)}) if heldout else None,  # `evaluate` has its own
        processing_class=tokenizer,
        peft_config=peft_config(section.lora, "SEQ_CLS"),
        callbacks=[RunFolder(folder, "reward_model", experiment.name, checkpoint), preemption],
        pairs=pairs,
        heldout=heldout,
        order=order,
        loss_of=_loss_of(section),
        run_id=run_id,
    )
    trainer.remove_callback(PrinterCallback)
    first = trainer.is_world_process_zero()
    if first:
        forget_after(folder, step_of(checkpoint))
        tasks = len({pair.task for pair in pairs})
        say(f"  {len(pairs)} pairs of {tasks} tasks to learn from, {len(heldout)} held out")
    run_training(trainer, folder, checkpoint, preemption, base, tokenizer, section.dtype, load)
    rewards = trainer.rewards_of(heldout).numpy()
    if first:
        _report(folder, pairs, heldout, rewards)
        write_page(folder, f"{experiment.name}: reward_model", trainer.state.max_steps, running=False)


def scoring_model(base: str, dtype: str, padding: int, **more: Any) -> PreTrainedModel:
    """Load a language model's body with a head of one label: its own, or one drawn from torch's generator.

    Args:
        padding: id of the token by which the model tells where a conversation ends.
    """
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    with suppress_seqcls_warning():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype, **more)
    model.config.get_text_config().pad_token_id = padding
    return model


def _arguments(experiment: Experiment, section: RewardModelSection) -> RewardConfig:
    folder = experiment.run_dir / "reward_model"
    arguments = RewardConfig(**trl_arguments(section, folder, experiment.seed, remove_unused_columns=False))
    settle_launch(arguments)
    for key in ("eval_strategy", "save_strategy"):
        if getattr(arguments, key).value == "epoch":
            steps = f"{key.split('_')[0]}_steps"
            raise UserError(f"reward_model.{key}: the order makes a run one epoch; use steps, and {steps}")
    if arguments.save_strategy.value == "best":
        raise UserError("reward_model.save_strategy: the last weights are the final ones; use steps")
    for key in ("chat_template_path", "eos_token"):
        if getattr(arguments, key):
            raise UserError(f"reward_model.{key}: the model is read with its own tokenizer and template; remove it")
    return arguments


def _loss_of(section: RewardModelSection) -> Callable[[Tensor], Tensor]:
    if section.loss == "ranking":
        return ranking_loss
    return partial(focal_ranking_loss, gamma=2.0 if section.gamma is None else section.gamma)


def _report(folder: Path, pairs: Sequence[Pair], heldout: Sequence[Pair], rewards: np.ndarray) -> None:
    """Write the rewards and the results, and say the accuracies.

    Raises:
        UserError: a reward is no finite number: training diverged.
    """
    if not np.isfinite(rewards).all():
        raise UserError(f"{folder}: held-out pairs have rewards that are no finite numbers; lower the learning rate")
    lines = [
        json.dumps({"id": pair.id, "task": pair.task, "chosen": chosen, "rejected": rejected}, ensure_ascii=False)
        for pair, (chosen, rejected) in zip(heldout, rewards.tolist(), strict=True)
    ]
    write_atomically(folder / "heldout.jsonl", "".join(f"{line}\n" for line in lines))
    results = results_of(pairs, heldout, rewards)
    write_json(folder / RESULTS, results)
    for task, found in results["tasks"].items():
        if "accuracy" in found:
            accuracy = found["accuracy"]
            interval = f"[{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
            say(f"  {task}: {100 * accuracy['value']:.1f} % {interval} of {found['heldout_pairs']} held-out pairs")
    if not heldout:
        say("  no preference rows are held out, so nothing is measured; give tasks of the recipe heldout_rows")


if __name__ == "__main__":
    from pipelines.alone import run_alone

    run_alone("reward_model", train)
