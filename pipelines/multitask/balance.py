"""Loss balance: what the training loss is a mean over, and how much each task counts in it.

A balance is a unit (token, example or task) and a weight of each task. The weights are fixed or follow the tasks'
losses: uncertainty weighting, dynamic weight average (DWA), FAMO. Those read the losses of the forward pass that
trains, never another one, so what they learn from a step takes effect in the next. The maths is in pure functions of
float64 arrays, the same on every process; the balancers keep their state, as JSON, in every checkpoint.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from data_recipes.errors import UserError, nearest

Unit = Literal["token", "example", "task"]

LOSS_FLOOR = 1e-3
"""Nats a token: a loss below it counts as this much, so that a task learned by heart does not take all the weight."""
LEARNING_RATE = 0.025
"""Of the balancers' own Adam, by which a log-variance or logit moves at most about as much a step (FAMO's
algorithm 2)."""
DWA_WINDOW, DWA_TEMPERATURE = 25, 2.0
FAMO_DECAY, FAMO_SMOOTHING = 1e-3, 0.9


@dataclass(frozen=True)
class StepCounts:
    """What an optimiser step trains on, over all processes and micro-batches.

    Attributes:
        tokens: (T,) trained tokens by task.
        examples: (T,) rows with at least one trained token, by task.
    """

    tokens: Sequence[float]
    examples: Sequence[float]


def unit_weights(unit: Unit, counts: StepCounts, task_weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return (T,) the weight of each task's units, c_t / sum over tasks of (c * units), divided evenly where the unit
    is a task among its tokens. A task without tokens in the step takes no part, nor does one of weight 0: if that
    leaves none, all are 0.

    Args:
        task_weights: (T,) c, of any sum.
    """
    tokens = np.asarray(counts.tokens, dtype=float)
    units = {"token": tokens, "example": np.asarray(counts.examples, dtype=float), "task": tokens > 0}[unit]
    weights = np.asarray(task_weights, dtype=float) * (tokens > 0)
    total = float((weights * units).sum())
    if total <= 0:
        return np.zeros(len(tokens))
    return weights / total / (np.maximum(tokens, 1) if unit == "task" else 1)


def token_weights(
    unit: Unit,
    counts: StepCounts,
    task_ids: torch.Tensor,
    row_tokens: torch.Tensor,
    task_weights: Sequence[float] | np.ndarray,
) -> torch.Tensor:
    """Return (B, L) float32 the weight of every token's negative log-likelihood; a step's loss is the sum of
    weight * nll over trained tokens, micro-batches and processes.

    Over the trained tokens of a step the weights sum to 1, whatever the unit: the loss keeps its scale. With c_t = 1,
    token: 1 / tokens; example: 1 / (examples * row_tokens); task: 1 / (tasks present * tokens of the task).

    Args:
        counts: of the whole step, equal on all processes.
        task_ids: (B, L) task number of each token, -1 at padding.
        row_tokens: (B, L) trained tokens of the row each token belongs to; only the unit example reads it.
        task_weights: (T,) c_t, of any sum; 0 leaves a task out of the mean.
    """
    by_task = unit_weights(unit, counts, task_weights)
    weights = torch.as_tensor(by_task, dtype=torch.float32, device=task_ids.device)[task_ids.clamp(min=0)]
    if unit == "example":
        weights = weights / row_tokens.clamp(min=1)
    return weights.masked_fill(task_ids < 0, 0.0)


@dataclass(frozen=True)
class Moments:
    """Adam's running means of each coordinate's gradient and its square, and the coordinate's steps; each (T,)."""

    first: np.ndarray
    second: np.ndarray
    steps: np.ndarray

    @classmethod
    def zero(cls, size: int) -> "Moments":
        """Return those of `size` coordinates before any step."""
        return cls(np.zeros(size), np.zeros(size), np.zeros(size))


def adam_step(
    values: np.ndarray, gradient: np.ndarray, moments: Moments, rate: float, moves: np.ndarray
) -> tuple[np.ndarray, Moments]:
    """Return `values` (T,) after a step of Adam (1412.6980, algorithm 1; betas 0.9, 0.999), and its moments.

    Args:
        moves: (T,) bool, the coordinates that take the step; the others keep value, moments and count.
    """
    steps = moments.steps + moves
    first = np.where(moves, 0.9 * moments.first + 0.1 * gradient, moments.first)
    second = np.where(moves, 0.999 * moments.second + 0.001 * gradient**2, moments.second)
    counted = np.maximum(steps, 1)
    update = rate * (first / (1 - 0.9**counted)) / (np.sqrt(second / (1 - 0.999**counted)) + 1e-8)
    return np.where(moves, values - update, values), Moments(first, second, steps)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return (T,) the softmax of `logits`."""
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def uncertainty_weights(log_variances: np.ndarray) -> np.ndarray:
    """Return (T,) exp(-s_t), the losses' weights under log-variances s_t = log sigma_t**2.

    Kendall, Gal, Cipolla 2018 (1705.07115), eq. 10: a classification loss, which negative log-likelihood of tokens is,
    counts 1 / sigma**2 * L + log sigma, which is exp(-s) * L + s / 2. (A regression loss counts half as much.)
    """
    return np.exp(-log_variances)


def uncertainty_step(
    log_variances: np.ndarray, losses: np.ndarray, moments: Moments, seen: np.ndarray, rate: float = LEARNING_RATE
) -> tuple[np.ndarray, Moments]:
    """Return the log-variances (T,) after a step of Adam on sum of exp(-s) * L + s / 2, and its moments.

    The gradient, 1/2 - exp(-s) * L, needs no autograd. It is zero at s = log 2L: there the weight is 1 / 2L.

    Args:
        losses: (T,) mean negative log-likelihood, nats.
        seen: (T,) bool, the tasks that have a loss; the others stay.
    """
    gradient = 0.5 - uncertainty_weights(log_variances) * losses
    return adam_step(log_variances, gradient, moments, rate, seen)


def dwa_weights(previous: np.ndarray, before_previous: np.ndarray, temperature: float = DWA_TEMPERATURE) -> np.ndarray:
    """Return (T,) the softmax of (previous / before_previous) / temperature: what falls slowly gets more weight.

    Liu, Johns, Davison 2019 (1803.10704), eq. 7, divided by the number of tasks K: there the weights sum to K, here to
    1, so that the loss keeps its scale.

    Args:
        previous: (T,) mean loss over the last window.
        before_previous: (T,) over the window before it.
    """
    return softmax(previous / before_previous / temperature)


def famo_weights(logits: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return (T,) c * z_t / L_t with z the softmax of the logits and c = 1 / sum(z / L); they sum to 1.

    FAMO (Liu, Feng, Stone, Liu 2023, 2306.03792), algorithm 1: the step follows the gradient of sum z_t log L_t.
    """
    weights = softmax(logits) / losses
    return weights / weights.sum()


def famo_step(
    logits: np.ndarray,
    decrease: np.ndarray,
    moments: Moments,
    seen: np.ndarray,
    rate: float = LEARNING_RATE,
    decay: float = FAMO_DECAY,
) -> tuple[np.ndarray, Moments]:
    """Return the logits (T,) after their step, and its moments: a task that falls faster than the rest loses weight.

    FAMO (2306.03792), algorithm 1: xi moves against delta + decay * xi, where delta_t = z_t * (d_t - sum z * d) is the
    Jacobian of the softmax times the decrease d of the log losses; with Adam, as in algorithm 2 and the paper's code.

    Args:
        decrease: (T,) log L before the step - log L after it.
        seen: (T,) bool, the tasks among which the softmax is taken; the others stay.
    """
    gradient = np.zeros(len(logits))
    if seen.any():
        shares, falls = softmax(logits[seen]), decrease[seen]
        gradient[seen] = shares * (falls - (shares * falls).sum()) + decay * logits[seen]
    return adam_step(logits, gradient, moments, rate, seen)


class Balancer:
    """A balance whose task weights do not change; those that follow the losses derive from it.

    Attributes:
        name: as in the experiment file; ``fixed`` for a mapping.
        unit: what the loss is a mean over.
        adaptive: whether the weights follow the losses.
    """

    adaptive = False

    def __init__(self, name: str, unit: Unit, weights: Sequence[float]) -> None:
        self.name, self.unit = name, unit
        self._weights = np.asarray(weights, dtype=float)

    def weights(self) -> np.ndarray:
        """Return (T,) the tasks' weights for the next step, summing to 1, whichever tasks that holds."""
        return self._weights / self._weights.sum()

    def observe(self, losses: Mapping[int, float]) -> None:
        """Learn from the step just finished.

        Args:
            losses: mean negative log-likelihood (nats a token) by task number, equal on all processes. A task that
                is left out, or whose loss is not finite, keeps what is known of it.
        """

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken, bit by bit the same."""


class Uncertainty(Balancer):
    """Uncertainty weighting: see `uncertainty_step`.

    Only the weights' ratio counts, as everywhere here: in the paper their sum changes, too, and the learning rate with
    it.
    """

    adaptive = True

    def __init__(self, num_tasks: int) -> None:
        super().__init__("uncertainty", "task", np.ones(num_tasks))
        self._log_variances, self._moments = np.zeros(num_tasks), Moments.zero(num_tasks)

    def weights(self) -> np.ndarray:
        weights = uncertainty_weights(self._log_variances)
        return weights / weights.sum()

    def observe(self, losses: Mapping[int, float]) -> None:
        values, seen = _as_arrays(losses, len(self._log_variances))
        self._log_variances, self._moments = uncertainty_step(self._log_variances, values, self._moments, seen)

    def state(self) -> dict[str, Any]:
        return {"log_variances": self._log_variances.tolist(), "moments": _moments_state(self._moments)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._log_variances, self._moments = np.array(state["log_variances"]), _moments_from(state["moments"])


class DynamicWeightAverage(Balancer):
    """DWA: see `dwa_weights`. The paper averages losses over an epoch; here it is `window` steps.

    A task has ratio 1 until it was seen in two windows, and keeps its ratio through a window it is not seen in.
    """

    adaptive = True
    _ARRAYS = ("sums", "counts", "previous", "before", "windows")

    def __init__(self, num_tasks: int, window: int = DWA_WINDOW) -> None:
        super().__init__("dwa", "task", np.ones(num_tasks))
        self._window, self._steps = window, 0
        self._sums, self._counts = np.zeros(num_tasks), np.zeros(num_tasks)
        self._previous, self._before = np.ones(num_tasks), np.ones(num_tasks)
        self._windows = np.zeros(num_tasks)  # in which each task was seen

    def weights(self) -> np.ndarray:
        return dwa_weights(np.where(self._windows < 2, self._before, self._previous), self._before)

    def observe(self, losses: Mapping[int, float]) -> None:
        values, seen = _as_arrays(losses, len(self._sums))
        self._sums, self._counts = self._sums + values, self._counts + seen
        self._steps += 1
        if self._steps == self._window:
            seen = self._counts > 0
            self._before = np.where(seen, self._previous, self._before)
            self._previous = np.where(seen, self._sums / np.maximum(self._counts, 1), self._previous)
            self._windows = self._windows + seen
            self._sums, self._counts, self._steps = np.zeros(len(seen)), np.zeros(len(seen)), 0

    def state(self) -> dict[str, Any]:
        arrays = {name: getattr(self, f"_{name}").tolist() for name in self._ARRAYS}
        return {"steps": self._steps, **arrays}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._steps = state["steps"]
        for name in self._ARRAYS:
            setattr(self, f"_{name}", np.array(state[name]))


class Famo(Balancer):
    """FAMO: see `famo_weights` and `famo_step`, with two approximations.

    The paper reads the loss of the same minibatch again after the step; that is a second forward pass. Here the next
    step's loss stands in for it. It comes from other rows, whose noise is larger than what a step changes, so log
    losses are averaged exponentially over about 1 / (1 - FAMO_SMOOTHING) of a task's steps, and the decrease is that
    of the average. For the same reason L in the weights is that average and not the loss of the step to come.

    A task that is absent keeps its average, so its decrease is 0 until it is back, and then all of it. A task not yet
    seen has the geometric mean of the others' losses.
    """

    adaptive = True

    def __init__(self, num_tasks: int) -> None:
        super().__init__("famo", "task", np.ones(num_tasks))
        self._logits, self._moments = np.zeros(num_tasks), Moments.zero(num_tasks)
        self._log_losses, self._seen = np.zeros(num_tasks), np.zeros(num_tasks, dtype=bool)

    def weights(self) -> np.ndarray:
        typical = self._log_losses[self._seen].mean() if self._seen.any() else 0.0
        return famo_weights(self._logits, np.exp(np.where(self._seen, self._log_losses, typical)))

    def observe(self, losses: Mapping[int, float]) -> None:
        values, present = _as_arrays(losses, len(self._logits))
        logs = np.log(np.where(present, values, 1.0))
        again = present & self._seen
        average = np.where(present, logs, self._log_losses)
        average[again] = FAMO_SMOOTHING * self._log_losses[again] + (1 - FAMO_SMOOTHING) * logs[again]
        if again.any():
            decrease = np.where(again, self._log_losses - average, 0.0)
            self._logits, self._moments = famo_step(self._logits, decrease, self._moments, self._seen)
        self._log_losses, self._seen = average, self._seen | present

    def state(self) -> dict[str, Any]:
        return {
            "logits": self._logits.tolist(),
            "moments": _moments_state(self._moments),
            "log_losses": self._log_losses.tolist(),
            "seen": self._seen.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._logits, self._moments = np.array(state["logits"]), _moments_from(state["moments"])
        self._log_losses, self._seen = np.array(state["log_losses"]), np.array(state["seen"], dtype=bool)


_ADAPTIVE = {"uncertainty": Uncertainty, "dwa": DynamicWeightAverage, "famo": Famo}
BALANCES = ("token", "example", "task", *_ADAPTIVE)


def make_balancer(balance: str | Mapping[str, float], tasks: Sequence[str]) -> Balancer:
    """Return the balancer that ``sft.balance`` asks for: a word of `BALANCES`, or each task's weight.

    Raises:
        UserError: an unknown word or task, a task without a weight, a weight that is no finite number of at least 0,
            or no weight above 0.
    """
    if isinstance(balance, Mapping):
        return Balancer("fixed", "task", _checked_weights(balance, tasks))
    if balance in _ADAPTIVE:
        return _ADAPTIVE[balance](len(tasks))
    for unit in ("token", "example", "task"):
        if balance == unit:
            return Balancer(unit, unit, np.ones(len(tasks)))
    raise UserError(f"sft.balance: unknown balance {balance!r}{nearest(balance, BALANCES)}")


def _checked_weights(weights: Mapping[str, float], tasks: Sequence[str]) -> list[float]:
    for task, weight in weights.items():
        if task not in tasks:
            raise UserError(f"sft.balance: the mixture has no task {task!r}{nearest(task, tasks)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UserError(f"sft.balance: the weight of {task} is {weight!r}; give a number of at least 0")
    missing = [task for task in tasks if task not in weights]
    if missing:
        raise UserError(
            f"sft.balance: no weight for {', '.join(missing)}; give every task of the mixture one (0: do not train on)"
        )
    if not any(weights.values()):
        raise UserError("sft.balance: every weight is 0; give the tasks to train on a weight above 0")
    return [float(weights[task]) for task in tasks]


def _as_arrays(losses: Mapping[int, float], num_tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (T,) the finite losses, floored, 0 where there is none, and (T,) bool where there is one."""
    values, seen = np.zeros(num_tasks), np.zeros(num_tasks, dtype=bool)
    for task, loss in losses.items():
        if math.isfinite(loss):
            values[task], seen[task] = max(loss, LOSS_FLOOR), True
    return values, seen


def _moments_state(moments: Moments) -> dict[str, list[float]]:
    return {name: array.tolist() for name, array in asdict(moments).items()}


def _moments_from(state: Mapping[str, list[float]]) -> Moments:
    return Moments(**{name: np.array(values) for name, values in state.items()})
