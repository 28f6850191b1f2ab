"""The loss on held-out rows while training: by task and by set, the best checkpoint, tasks that are set aside."""

from pathlib import Path
from typing import Any

import torch

from data_recipes.errors import UserError, nearest
from data_recipes.files import read_jsonl
from data_recipes.layouts import is_row, recognised
from data_recipes.row import Row
from data_recipes.store import HELDOUT, Mixture
from pipelines.multitask.batches import IGNORED
from pipelines.multitask.task_loss import task_sums
from pipelines.tokens import ChatTokeniser
from pipelines.training import GENERATED

MIXTURE_SET = "heldout"
TAKEN = {MIXTURE_SET: "that is the mixture's own", GENERATED: "generated answers are logged under it"}


class HeldoutSet:
    """Tokenised rows in batches of like length."""

    def __init__(self, rows: list[Row], tokeniser: ChatTokeniser, max_length: int | None, batch_size: int) -> None:
        """Tokenise.

        Args:
            max_length: rows are cut after so many tokens; those without a target within it are left out.
            batch_size: rows a forward pass.
        """
        rows = [row for row in rows if row.target is not None]
        tokenised = [(ids[:max_length], start) for ids, start in tokeniser(rows)]
        kept = [(ids, start, row.task) for (ids, start), row in zip(tokenised, rows, strict=True) if start < len(ids)]
        self.tasks = sorted({task for _, _, task in kept})
        self._padding = tokeniser.tokenizer.pad_token_id or 0
        kept.sort(key=lambda one: len(one[0]))
        self.batches = [kept[start : start + batch_size] for start in range(0, len(kept), batch_size)]

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        """Return (B, L) ``input_ids``, ``attention_mask``, ``labels`` and ``task_ids``."""
        examples = self.batches[number]
        shape = (len(examples), max(len(ids) for ids, _, _ in examples))
        batch = {name: torch.zeros(shape, dtype=torch.long) for name in ("attention_mask",)}
        batch["input_ids"] = torch.full(shape, self._padding, dtype=torch.long)
        batch["labels"] = torch.full(shape, IGNORED, dtype=torch.long)
        batch["task_ids"] = torch.full(shape, -1, dtype=torch.long)
        for line, (ids, start, task) in enumerate(examples):
            batch["input_ids"][line, : len(ids)] = torch.tensor(ids)
            batch["attention_mask"][line, : len(ids)] = 1
            batch["labels"][line, max(start, 1) : len(ids)] = torch.tensor(ids[max(start, 1) :])
            batch["task_ids"][line, max(start, 1) : len(ids)] = self.tasks.index(task)
        return batch


def heldout_sets(
    mixture: Mixture, others: dict[str, str], tokeniser: ChatTokeniser, max_length: int | None, batch_size: int
) -> dict[str, HeldoutSet]:
    """Return the sets to measure on, by name: the mixture's held-out rows, and files.

    Raises:
        UserError: a file is missing, holds what is no row or nothing to measure on, or nothing is held out.
    """
    for name in others:
        check_set_name(name)
    rows = {MIXTURE_SET: mixture.rows(HELDOUT), **{name: _rows_of(name, path) for name, path in others.items()}}
    sets = {name: HeldoutSet(found, tokeniser, max_length, batch_size) for name, found in rows.items() if found}
    sets = {name: one for name, one in sets.items() if one.batches}
    for name in others:
        if name not in sets:
            raise UserError(
                f"sft.eval_sets.{name}: no row of {others[name]} has a target within sft.max_length; mend it"
            )
    if not sets:
        raise UserError(
            "sft.eval_strategy: nothing is held out; give tasks of the recipe heldout_rows, or leave it out"
        )
    return sets


def check_set_name(name: str) -> None:
    """Refuse a name under which a set's metrics would mix with others.

    Raises:
        UserError: it is such a name.
    """
    why = TAKEN.get(name) or (not name and "it is empty") or ("/" in name and "it has a slash")
    if why:
        raise UserError(f"sft.eval_sets: {name!r} cannot be a set's name ({why}); choose another one")


def _rows_of(name: str, path: str) -> list[Row]:
    if not Path(path).exists():
        raise UserError(f"sft.eval_sets.{name}: there is no file {path}; mend the path")
    rows = []
    for number, record in enumerate(read_jsonl(Path(path)), start=1):
        try:
            if is_row(record):
                rows.append(Row.model_validate(record))
            else:
                task = str(record.pop("task", name))
                turns = recognised(record)["messages"]
                rows.append(Row(id=f"{name}:{number}", task=task, kind="instruction", messages=turns))
        except ValueError as error:
            first = " ".join(str(error).split())[:200]
            raise UserError(f"{path}, line {number}: {first}; mend the line") from None
    return rows


def measure(trainer: Any, sets: dict[str, HeldoutSet]) -> dict[str, float]:
    """Return ``eval_SET/loss`` (the mean of its tasks) and ``eval_SET/{loss,accuracy,tokens}/TASK``.

    Every process runs as many forward passes as the others: ZeRO-3 and FSDP2 gather weights in each.
    """
    model = trainer.model_wrapped
    was_training = model.training
    model.eval()
    size, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    metrics: dict[str, float] = {}
    for name, one in sets.items():
        sums = torch.zeros(len(one.tasks), 3, dtype=torch.float64)
        for first in range(0, len(one.batches), size):
            number = first + rank
            batch = one.batch(min(number, len(one.batches) - 1))
            inputs = {key: value.to(trainer.args.device) for key, value in batch.items()}
            task_ids = inputs.pop("task_ids")
            with torch.no_grad(), trainer.compute_loss_context_manager():
                outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            if number < len(one.batches):
                sums += task_sums(len(one.tasks), task_ids[:, 1:], -outputs.log_probs, outputs.is_top1)
        sums = trainer.sum_over_processes(sums)
        losses = sums[:, 0] / sums[:, 1]
        metrics[f"eval_{name}/loss"] = losses.mean().item()
        for task, loss, (_, tokens, hits) in zip(one.tasks, losses.tolist(), sums.tolist(), strict=True):
            metrics |= {
                f"eval_{name}/loss/{task}": loss,
                f"eval_{name}/accuracy/{task}": hits / tokens,
                f"eval_{name}/tokens/{task}": tokens,
            }
    model.train(was_training)
    return metrics


def best_metric(best: str | None, sets: dict[str, HeldoutSet]) -> str | None:
    """Return the metric by which checkpoints are compared.

    Raises:
        UserError: nothing is held out of that task, or of any.
    """
    if best is None:
        return None
    if MIXTURE_SET not in sets:
        raise UserError("sft.best: nothing is held out of the mixture; give tasks of the recipe heldout_rows")
    if best == "mean":
        return f"eval_{MIXTURE_SET}/loss"
    tasks = sets[MIXTURE_SET].tasks
    if best not in tasks:
        raise UserError(f"sft.best: nothing is held out of {best!r}{nearest(best, ['mean', *tasks])}")
    return f"eval_{MIXTURE_SET}/loss/{best}"


class EarlyStopping:
    """Sets a task aside once its held-out loss has not fallen for `patience` evaluations."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best: dict[str, float] = {}
        self._since: dict[str, int] = {}
        self.stopped: dict[str, int] = {}
        """Step at which each task was set aside."""

    def observe(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Book an evaluation and return ``stopped/TASK`` of the tasks set aside so far."""
        prefix = f"eval_{MIXTURE_SET}/loss/"
        for key, loss in metrics.items():
            task = key.removeprefix(prefix)
            if not key.startswith(prefix) or task in self.stopped:
                continue
            if loss < self._best.get(task, float("inf")):
                self._best[task], self._since[task] = loss, 0
                continue
            self._since[task] += 1
            if self._since[task] >= self._patience:
                self.stopped[task] = step
        return {f"stopped/{task}": at for task, at in self.stopped.items()}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {"best": self._best, "since": self._since, "stopped": self.stopped}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self._best, self._since, self.stopped = dict(state["best"]), dict(state["since"]), dict(state["stopped"])
