"""Preference rows as pairs of token sequences, and the batches and the order they are trained on in."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from trl.trainer.reward_trainer import DataCollatorForPreference

from data_recipes.errors import UserError, nearest
from data_recipes.mixing import draws_of
from data_recipes.order import Order
from data_recipes.progress import say
from data_recipes.reading import group_of
from data_recipes.row import Message, Row
from data_recipes.store import HELDOUT, TRAIN, Mixture
from eval.reward_models import conversation_tokens
from pipelines.multitask.order import PlannedOrder


@dataclass(frozen=True)
class Pair:
    """Two whole conversations that differ in what the assistant says last, tokenised."""

    id: str
    task: str
    group: str
    """Pairs that answer one question share it: they are no independent evidence."""
    chosen: np.ndarray
    """(L,) int64."""
    rejected: np.ndarray

    @property
    def length(self) -> int:
        """Tokens of the longer one."""
        return max(len(self.chosen), len(self.rejected))


def read_pairs(
    mixture: Mixture, tasks: list[str], tokenizer: Any, max_length: int | None
) -> tuple[list[Pair], list[Pair]]:
    """Return the training pairs, task after task, and the held-out ones.

    Args:
        tasks: to read; empty: all that have preference rows.
        max_length: pairs with a longer conversation are left out, and told of.

    Raises:
        UserError: the mixture has no preference rows, none of a task, or none within `max_length`.
    """
    train = [row for row in mixture.rows(TRAIN) if row.chosen is not None]
    if not train:
        raise UserError(
            f"{mixture.folder}: no row has chosen and rejected answers, so there are no pairs to learn from; give the"
            " recipe a task of preference rows"
        )
    known = list(dict.fromkeys(row.task for row in train))
    for task in tasks:
        if task not in known:
            raise UserError(f"reward_model.tasks: the mixture has no preference rows of {task!r}{nearest(task, known)}")
    wanted = set(tasks or known)
    heldout = [row for row in mixture.rows(HELDOUT) if row.chosen is not None]
    pairs = [
        _tokenised([row for row in rows if row.task in wanted], tokenizer, max_length, what)
        for rows, what in ((train, "training"), (heldout, "held-out"))
    ]
    left = {pair.task for pair in pairs[0]}
    for task in known:
        if task in wanted and task not in left:
            raise UserError(
                f"reward_model.max_length: no pair of {task!r} is within {max_length} tokens; raise it, or leave the"
                " task out of reward_model.tasks"
            )
    return pairs[0], pairs[1]


def _tokenised(rows: list[Row], tokenizer: Any, max_length: int | None, what: str) -> list[Pair]:
    sides = [
        conversation_tokens(tokenizer, [[*row.prompt, *map(Message.model_dump, getattr(row, side))] for row in rows])
        for side in ("chosen", "rejected")
    ]
    pairs = [
        Pair(row.id, row.task, group_of(row), np.array(chosen, np.int64), np.array(rejected, np.int64))
        for row, chosen, rejected in zip(rows, *sides, strict=True)
    ]
    kept = [pair for pair in pairs if max_length is None or pair.length <= max_length]
    for task, count in (Counter(pair.task for pair in pairs) - Counter(pair.task for pair in kept)).items():
        say(f"  {task}: {count} {what} pairs are longer than reward_model.max_length {max_length} and left out")
    return kept


class PairBatches:
    """Collates pair numbers, or pairs, into what the trainer reads: TRL's batch, chosen before rejected."""

    def __init__(self, pairs: Sequence[Pair], tasks: Sequence[str], padding: int, multiple_of: int | None) -> None:
        self._pairs, self._tasks = pairs, tasks
        self._pad = DataCollatorForPreference(padding, multiple_of)

    def __call__(self, examples: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Return (2B, L) ``input_ids`` and ``attention_mask`` and (B,) ``task_ids``."""
        return self.batch([self._pairs[example["index"]] for example in examples])

    def batch(self, pairs: Sequence[Pair]) -> dict[str, torch.Tensor]:
        """Return the batch of some pairs."""
        padded = self._pad([{"chosen_ids": pair.chosen, "rejected_ids": pair.rejected} for pair in pairs])
        return {**padded, "task_ids": torch.tensor([self._tasks.index(pair.task) for pair in pairs])}


def order_of(mixture: Mixture, pairs: Sequence[Pair], arguments: Any, seed: int) -> PlannedOrder:
    """Return the order of a whole run, in which every step is full: tasks in the recipe's shares, pairs of like length
    together.

    Args:
        pairs: task after task.
        arguments: batch sizes, epochs or steps, as TRL names them.

    Raises:
        UserError: the recipe's mixing reads none of the tasks.
    """
    sizes = Counter(pair.task for pair in pairs)
    epoch = draws_of(mixture.manifest, prompts_too=True)
    draws = dict(zip(epoch.tasks, epoch.rows, strict=True))
    counts = dict(zip(epoch.tasks, epoch.sizes, strict=True))
    # of a task's draws the part that its pairs are of its rows: others have no pair, or one too long
    drawn = tuple(math.ceil(draws[task] * size / counts[task]) for task, size in sizes.items())
    if not any(drawn):
        raise UserError(f"reward_model.tasks: the recipe's mixing reads none of {', '.join(sizes)}; give them a share")
    order = Order(tuple(sizes.values()), (drawn,), seed)
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps = math.ceil(len(order) * arguments.num_train_epochs / batch)
    if arguments.max_steps > 0:
        steps = arguments.max_steps
    lengths = np.array([pair.length for pair in pairs])
    return PlannedOrder(order, lengths, batch, batch * steps, seed)
