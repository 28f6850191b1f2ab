"""Ladder fits: from small models' curves to a large model's score, and whether each fit deserves its name.

The two steps of "Establishing Task Scaling Laws via Compute-Efficient Model Ladders" (arXiv 2412.04403, code in
allenai/OLMo-ladder): task loss as a power law of parameters and tokens, accuracy as a sigmoid of task loss; chained,
they predict the accuracy of a model from its size alone. A third fit goes from parameters and tokens straight to
accuracy. Starting points, bounds, loss and optimiser are the reference's, so published predictions come out; beside
them every fit says whether the optimiser arrived: with the reference's start, the direct fit often never leaves it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from data_recipes.errors import UserError
from eval.score_table import LOWER_IS_BETTER, ScoreTable

HUBER_DELTA = 1e-3
"""Of log residuals: beyond 0.1 % a point pulls with constant strength."""
LOSS_START, LOSS_BOUNDS = (3.0, 6.0, 0.1, 0.2, 1.0), ((0, None),) * 5
DIRECT_START, DIRECT_BOUNDS = (2.0, 2.0, 0.2, 0.2, 1.0), ((0, None),) * 3 + ((None, None),) * 2
SIGMOID_START, SIGMOID_BOUNDS = (-0.75, 0.9, 3.0, 1.0), ((-1.0, 0.0, 0.0, 0.0), (0.0, np.inf, np.inf, 1.0))
STILL_FALLING = 0.01
"""A fit whose steepest slope is still this share of the slope at its start has not arrived."""


@dataclass(frozen=True)
class Fit:
    """A fitted curve, and whether its optimiser arrived."""

    coefficients: tuple[float, ...]
    loss: float
    iterations: int
    slope: float
    """Steepest slope of the loss along a coefficient that its bound lets move, as a share of that at the start."""

    @property
    def fault(self) -> str:
        """What is wrong with the fit in a few words; empty where nothing is."""
        if not (np.isfinite(self.loss) and self.slope > STILL_FALLING):
            return "" if np.isfinite(self.loss) else "its loss is no number"
        return "never left its start" if self.iterations <= 1 else "stopped where its loss still falls"


def power_law(coefficients: Sequence[float], params: Any, tokens: Any, rising: bool = False) -> Any:
    """Return E + e^a / N^alpha + e^b / D^beta, or E minus both terms where it rises with size.

    Args:
        coefficients: a, b, alpha, beta, E.
        params: N, one or an array.
        tokens: D, alike.
    """
    a, b, alpha, beta, level = coefficients
    gap = np.exp(a - np.log(params) * alpha) + np.exp(b - np.log(tokens) * beta)
    return level - gap if rising else level + gap


def fit_power_law(
    params: Sequence[float],
    tokens: Sequence[float],
    values: Sequence[float],
    *,
    rising: bool = False,
    start: Sequence[float] | None = None,
    floor: float = -np.inf,
) -> Fit:
    """Fit `power_law` by the Huber loss of log residuals with L-BFGS-B.

    Args:
        values: positive; losses, or accuracies with `rising`.
        start: a, b, alpha, beta, E; absent: the reference's.
        floor: what a prediction counts as that falls below. Without one, as in the reference, a step that takes a
            prediction below 0 has no loss, and there the optimiser gives up.
    """
    from scipy.optimize import minimize

    log_n, log_d, log_y = (np.log(np.asarray(column, float)) for column in (params, tokens, values))
    sign = -1.0 if rising else 1.0
    bounds = DIRECT_BOUNDS if rising else LOSS_BOUNDS

    def loss_and_slopes(c: np.ndarray) -> tuple[float, np.ndarray]:
        of_n, of_d = np.exp(c[0] - log_n * c[2]), np.exp(c[1] - log_d * c[3])
        free = c[4] + sign * (of_n + of_d)
        predicted = np.maximum(free, floor)
        off = np.log(predicted) - log_y
        small = np.abs(off) < HUBER_DELTA
        loss = np.where(small, off**2 / 2, HUBER_DELTA * (np.abs(off) - HUBER_DELTA / 2)).sum()
        pull = np.where(small, off, HUBER_DELTA * np.sign(off)) / predicted
        pull = np.where(free < floor, 0, pull)
        by_n, by_d = sign * pull * of_n, sign * pull * of_d
        slopes = [by_n.sum(), by_d.sum(), -(by_n * log_n).sum(), -(by_d * log_d).sum(), pull.sum()]
        return float(loss), np.array(slopes)

    begin = np.array(start or (DIRECT_START if rising else LOSS_START), float)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        options = {"ftol": 0.0, "gtol": 1e-10, "maxiter": 1_000_000}
        found = minimize(loss_and_slopes, begin, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
        loss, slopes = loss_and_slopes(found.x)
        first = np.abs(loss_and_slopes(begin)[1]).max()
    lows = np.array([-np.inf if low is None else low for low, _ in bounds])
    held = (found.x <= lows) & (slopes > 0)  # downhill lies beyond the bound
    steepest = np.where(held, 0, np.abs(slopes)).max()
    return Fit(tuple(map(float, found.x)), loss, int(found.nit), float(steepest / first) if first else 0.0)


def refit_from_data(
    params: Sequence[float], tokens: Sequence[float], values: Sequence[float], *, rising: bool = False
) -> Fit:
    """Fit `power_law` from starts laid through the data, and return the fit of least loss (our own; no reference).

    A start's exponents are one of three; its level is just beyond the best value seen, and the gap between that and
    the worst is shared by the two terms, so that every start predicts a positive score everywhere. A hundredth of the
    worst value is the floor of predictions.
    """
    n, d, y = (np.asarray(column, float) for column in (params, tokens, values))
    level = 1.1 * y.max() if rising else 0.9 * y.min()
    gap = (level - y.min() if rising else y.max() - level) / 2
    fits = []
    for exponent in (0.1, 0.3, 0.5):
        a, b = (max(0.0, float(np.log(gap) + exponent * np.log(column.min()))) for column in (n, d))
        start = (a, b, exponent, exponent, float(level))
        fits.append(fit_power_law(params, tokens, values, rising=rising, start=start, floor=float(y.min()) / 100))
    return min(fits, key=lambda fit: (bool(fit.fault), fit.loss if np.isfinite(fit.loss) else np.inf))


def sigmoid(coefficients: Sequence[float], losses: Any) -> Any:
    """Return a / (1 + exp(-k (L - L0))) + b for coefficients a, L0, k, b."""
    a, middle, k, b = coefficients
    return a / (1 + np.exp(-k * (np.asarray(losses) - middle))) + b


def fit_sigmoid(losses: Sequence[float], accuracies: Sequence[float]) -> Fit:
    """Fit `sigmoid` by least squares, with one point added: no loss, accuracy 1."""
    from scipy.optimize import least_squares

    x, y = np.append(np.asarray(losses, float), 0.0), np.append(np.asarray(accuracies, float), 1.0)

    def residuals(c: np.ndarray) -> np.ndarray:
        return sigmoid(c, x) - y

    with np.errstate(over="ignore"):
        found = least_squares(residuals, SIGMOID_START, bounds=SIGMOID_BOUNDS)
        start = least_squares(residuals, SIGMOID_START, bounds=SIGMOID_BOUNDS, max_nfev=1)
    share = found.optimality / start.optimality if start.optimality else 0.0
    return Fit(tuple(map(float, found.x)), float(found.cost), int(found.nfev) - 1, float(share))


def moving_average(values: Sequence[float], n: int) -> np.ndarray:
    """Return the mean of each value and up to n - 1 before it."""
    return np.array([np.mean(values[max(0, i + 1 - n) : i + 1]) for i in range(len(values))])


@dataclass(frozen=True)
class Prediction:
    """A predicted score of a target model beside the actual one, and the fit it comes from."""

    actual: float
    predicted: float
    fits: tuple[Fit, ...]
    fit_error: float | None = None
    """Mean |predicted - actual| / actual on the points fitted to."""

    @property
    def error(self) -> float:
        """(predicted - actual) / actual."""
        return (self.predicted - self.actual) / self.actual

    @property
    def fault(self) -> str:
        """What is wrong with the fits; empty where nothing is."""
        return "; ".join(dict.fromkeys(fit.fault for fit in self.fits if fit.fault))


@dataclass(frozen=True)
class LadderResult:
    """Everything the ladder says of one task and one target model."""

    task: str
    target: str
    loss: Prediction
    """step 1: task loss from parameters and tokens"""
    accuracy: Prediction
    """step 2: accuracy from the target's actual task loss"""
    chained: Prediction
    """both steps: accuracy from parameters and tokens"""
    direct: Prediction
    """accuracy from parameters and tokens in one power law"""
    refit: Prediction | None
    """the direct fit from other starts, where the first is at fault"""


@dataclass(frozen=True)
class _Curve:
    params: float
    tokens: np.ndarray
    losses: np.ndarray
    accuracies: np.ndarray


def predict_task(
    table: ScoreTable,
    task: str,
    targets: Sequence[str],
    *,
    train: Sequence[str] | None = None,
    loss_metric: str = "bits_per_byte",
    accuracy_metric: str = "accuracy",
    averaged: int = 5,
    skipped: float = 0.1,
) -> list[LadderResult]:
    """Fit the ladder of one task and predict each target.

    Args:
        table: with params of every model and tokens of every checkpoint.
        targets: the models to predict; they are never fitted to.
        train: the models to fit to; absent: all others.
        averaged: checkpoints at a run's end whose mean is its score (step 1), and window of the moving average over
            all its checkpoints (step 2).
        skipped: share of a run's first checkpoints that step 2 leaves out.

    Raises:
        UserError: a metric, params or tokens are missing, a value cannot be fitted, or there are too few models.
    """
    if accuracy_metric in LOWER_IS_BETTER or loss_metric == accuracy_metric:
        raise UserError(f"{table.where}: {accuracy_metric!r} is no accuracy; give --metric one that rises with size")
    names = [model for model in train or table.models if model not in targets]
    curves = {name: _curve(table, task, name, loss_metric, accuracy_metric) for name in [*names, *targets]}
    rungs = [curves[name] for name in names]
    if len(rungs) < 5:
        few = f"{len(rungs)} models to fit {task} to"
        raise UserError(f"{table.where}: {few}; add some: five coefficients take at least 5")
    params, tokens = [rung.params for rung in rungs], [rung.tokens[-1] for rung in rungs]
    losses = [float(np.mean(rung.losses[-averaged:])) for rung in rungs]
    accuracies = [float(np.mean(rung.accuracies[-averaged:])) for rung in rungs]
    for name, curve in curves.items():
        if min(np.mean(curve.losses[-averaged:]), np.mean(curve.accuracies[-averaged:])) <= 0:
            raise UserError(f"{table.where}: {name} ends at 0 or below on {task}; leave the task out with --tasks")
    first = fit_power_law(params, tokens, losses)
    direct = fit_power_law(params, tokens, accuracies, rising=True)
    again = refit_from_data(params, tokens, accuracies, rising=True) if direct.fault else None
    path_losses, path_accuracies = [], []
    for rung in rungs:
        begin = ceil(skipped * len(rung.losses))
        path_losses += moving_average(rung.losses[begin:], averaged).tolist()
        path_accuracies += moving_average(rung.accuracies[begin:], averaged).tolist()
    second = fit_sigmoid(path_losses, path_accuracies)

    def result(name: str) -> LadderResult:
        target = curves[name]
        loss, accuracy = (float(np.mean(path[-averaged:])) for path in (target.losses, target.accuracies))
        size = target.params, target.tokens[-1]
        predicted_loss = float(power_law(first.coefficients, *size))

        def straight(fit: Fit) -> Prediction:
            curve = power_law(fit.coefficients, params, tokens, rising=True)
            predicted = float(power_law(fit.coefficients, *size, rising=True))
            return Prediction(accuracy, predicted, (fit,), _fit_error(curve, accuracies))

        fit_error = _fit_error(power_law(first.coefficients, params, tokens), losses)
        return LadderResult(
            task=task,
            target=name,
            loss=Prediction(loss, predicted_loss, (first,), fit_error),
            accuracy=Prediction(accuracy, float(sigmoid(second.coefficients, loss)), (second,)),
            chained=Prediction(accuracy, float(sigmoid(second.coefficients, predicted_loss)), (first, second)),
            direct=straight(direct),
            refit=straight(again) if again else None,
        )

    return [result(name) for name in targets]


def _fit_error(predicted: np.ndarray, actual: Sequence[float]) -> float:
    return float(np.mean(np.abs(predicted - actual) / np.asarray(actual)))


def _curve(table: ScoreTable, task: str, model: str, loss_metric: str, accuracy_metric: str) -> _Curve:
    columns: list[Callable[..., Any]] = []
    for metric in (loss_metric, accuracy_metric):
        run = table.runs(task, metric, [model]).get(model)
        if run is None:
            raise UserError(f"{table.where}: {model} has no {metric} on {task}; add it, or choose with --models")
        columns.append(dict(zip(run.steps, run.scores, strict=True)))
    losses, accuracies = columns
    steps = [step for step in losses if step in accuracies]
    if "params" not in table.facts.get(model, {}):
        raise UserError(f"{table.where}: the params of {model} are missing; add a column 'params' (its parameters)")
    for step in steps:
        if (model, step) not in table.tokens:
            raise UserError(f"{table.where}: the tokens of {model} at step {step} are missing; add a column 'tokens'")
    if not steps:
        raise UserError(f"{table.where}: {model} has no step with both {loss_metric} and {accuracy_metric}; add one")
    return _Curve(
        table.facts[model]["params"],
        np.array([table.tokens[model, step] for step in steps]),
        np.array([losses[step] for step in steps]),
        np.array([accuracies[step] for step in steps]),
    )
