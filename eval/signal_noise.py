"""Signal, noise within a run, their ratio, and decision accuracy: how far a benchmark can tell models apart.

"Signal and Noise" (arXiv 2508.13144) divides the spread of models (signal) by the spread of one model's last
checkpoints (noise). Both are relative to the mean score, so a ratio has no unit. Noise here is the spread within a run:
the reference pools checkpoints of all its small models into one sample, whose spread holds the signal itself, and its
ratio can hardly pass `pooled_cap`, however good the benchmark. That definition stays as `pooled_noise`, for
comparison.

A run is a model's scores in the order of its checkpoints; everything here is a pure function of such lists.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erf, sqrt

import numpy as np

from eval.statistics import Z95

Runs = Mapping[str, Sequence[float]]
"""model -> its scores, checkpoint after checkpoint"""


def _pairwise(scores: np.ndarray) -> np.ndarray:
    """Return |a - b| of all pairs of scores."""
    first, second = np.triu_indices(len(scores), k=1)
    return np.abs(scores[first] - scores[second])


def _relative(spread: Callable[[np.ndarray], float], power: int = 1) -> Callable[[np.ndarray], float]:
    def signal(scores: np.ndarray) -> float:
        return float(spread(scores)) / abs(float(np.mean(scores))) ** power

    return signal


def _between(low: float, high: float) -> Callable[[np.ndarray], float]:
    return lambda scores: float(np.subtract(*np.percentile(scores, [high, low])))


def _entropy_width(scores: np.ndarray) -> float:
    """Return exp of the nearest-neighbour entropy (Kozachenko and Leonenko): the width the scores seem spread over.

    Two models of one score make it 0; the reference adds unseeded noise there instead.
    """
    distances = np.abs(scores[:, None] - scores[None, :]) + np.diag(np.full(len(scores), np.inf))
    nearest = distances.min(axis=1)
    if not nearest.all():
        return 0.0
    harmonic = sum(1 / i for i in range(1, len(scores)))  # digamma(n) - digamma(1)
    return float(np.exp(harmonic + np.log(2) + np.mean(np.log(nearest))))


def _discrepancy(scores: np.ndarray) -> float:
    """Return the squared centred L2 discrepancy (Hickernell 1998) of scores in [0, 1]."""
    off = np.abs(scores - 0.5)
    pairs = 1 + off[:, None] / 2 + off[None, :] / 2 - np.abs(scores[:, None] - scores[None, :]) / 2
    return float(13 / 12 - 2 * np.mean(1 + off / 2 - off**2 / 2) + np.mean(pairs))


def _star_discrepancy(scores: np.ndarray) -> float:
    """Return the largest gap between the scores' distribution function and the uniform one, for scores in [0, 1]."""
    ordered, ranks = np.sort(scores), np.arange(len(scores) + 1) / len(scores)
    return float(max(np.max(ranks[1:] - ordered), np.max(ordered - ranks[:-1])))


SIGNALS: dict[str, Callable[[np.ndarray], float]] = {
    "dispersion": _relative(np.ptp),
    "sd": _relative(np.std),
    "pairwise": _relative(lambda scores: np.mean(_pairwise(scores))),
    "squared_pairwise": _relative(lambda scores: np.mean(_pairwise(scores) ** 2), power=2),
    "distance_sd": _relative(lambda scores: np.std(_pairwise(scores))),
    "median_deviation": _relative(lambda scores: np.median(np.abs(scores - np.median(scores)))),
    "mean_deviation": _relative(lambda scores: np.mean(np.abs(scores - np.mean(scores)))),
    "iqr": _relative(_between(25, 75)),
    "quartile_deviation": _relative(lambda scores: _between(25, 75)(scores) / 2),
    "robust_range": _relative(_between(5, 95)),
    "gini": _relative(lambda scores: np.mean(np.abs(scores[:, None] - scores[None, :])) / 2),
    "entropy": _relative(_entropy_width),
    "discrepancy": _discrepancy,
    "star_discrepancy": _star_discrepancy,
}
"""Ways to measure the spread of models' scores (array of n); all but the last two, which want scores in [0, 1] and grow
as models bunch together, are relative to the mean (the squared one to its square)."""

LEFT_OUT = {
    "shifted dispersion": "the range of scores shifted and scaled to [0, 1] is always 1",
    "shifted star discrepancy": "scaled to [0, 1], it no longer knows how far models lie apart",
    "projection depth": "depths are scaled by the spread itself, so they do not know it",
    "Tukey depth": "a function of the ranks alone: the same for any scores without ties",
    "histogram entropy": "a density is summed without its bins' width, and the result depends on the bins",
}
"""Variants of the reference that are no measure of spread, and why."""


@dataclass(frozen=True)
class SignalNoise:
    """What one benchmark shows under one metric; a figure is None where it is not defined."""

    signal: float | None
    """Spread of the models, relative to their mean."""
    noise: float | None
    """Mean over runs of sd / mean of their last checkpoints (pooled: of all of them in one sample)."""
    snr: float | None
    """signal / noise; None also where the checkpoints do not differ at all."""
    models: int
    noise_runs: int
    """Runs with at least two checkpoints."""
    checkpoints: int
    """Most checkpoints taken from a run."""
    apart: float | None
    """Share of the pairs of models further apart than noise explains; see `pairs_apart`."""
    trend: float | None
    """Share of the noise that is a straight line over the checkpoints; see `trend`."""


def window(runs: Runs, last: int) -> dict[str, np.ndarray]:
    """Return the last `last` scores of every run, fewer where it has no more."""
    return {model: np.asarray(scores, float)[-last:] for model, scores in runs.items()}


def levels(runs: Runs, averaged: int) -> dict[str, float]:
    """Return the mean of every run's last `averaged` scores."""
    return {model: float(np.mean(scores)) for model, scores in window(runs, averaged).items()}


def within_run_noise(runs: Runs, last: int = 30, ddof: int = 0) -> float | None:
    """Return the mean over runs of sd / |mean| of their last checkpoints; runs of one checkpoint tell nothing.

    Args:
        ddof: 0 divides by n, as the reference does; 1 by n - 1.
    """
    parts = [scores for scores in window(runs, last).values() if len(scores) > 1]
    if not parts or any(np.mean(scores) == 0 for scores in parts):
        return None
    return float(np.mean([np.std(scores, ddof=ddof) / abs(np.mean(scores)) for scores in parts]))


def pooled_noise(runs: Runs, last: int = 30, ddof: int = 0) -> float | None:
    """Return sd / |mean| of the last checkpoints of all runs in one sample (`compute_snr_small_scale`)."""
    scores = np.concatenate(list(window(runs, last).values()))
    return float(np.std(scores, ddof=ddof) / abs(np.mean(scores))) if len(scores) > ddof and np.mean(scores) else None


def pooled_cap(models: int) -> float:
    """Return the expected range of `models` normal draws in sds: what a pooled ratio nears as noise vanishes.

    3.9 for 25 models, 3.5 for 16. It is no strict limit: that is sqrt(2 * models), for models in two heaps.
    """
    grid = np.linspace(-8, 8, 4001)
    below = np.array([(1 + erf(x / sqrt(2))) / 2 for x in grid])
    return float(np.sum(1 - below**models - (1 - below) ** models) * (grid[1] - grid[0]))


def signal_noise(
    runs: Runs,
    *,
    last: int = 30,
    averaged: int | None = None,
    signal: str = "dispersion",
    ddof: int = 0,
    noise_runs: Runs | None = None,
    pooled: bool = False,
) -> SignalNoise:
    """Return signal, noise and their ratio for one benchmark.

    Args:
        last: checkpoints at a run's end whose spread is noise.
        averaged: checkpoints at a run's end whose mean is the model's score; absent: as many as `last`.
        signal: a key of `SIGNALS`.
        noise_runs: runs whose noise counts; absent: all of `runs`.
        pooled: the reference's noise for small models, over all checkpoints of all runs at once.
    """
    scores = levels(runs, averaged or last)
    noisy = runs if noise_runs is None else noise_runs
    spread = _signal(np.array(list(scores.values())), signal)
    noise = (pooled_noise if pooled else within_run_noise)(noisy, last, ddof)
    counted = [len(one) for one in window(noisy, last).values()]
    return SignalNoise(
        signal=spread,
        noise=noise,
        snr=spread / noise if spread is not None and noise else None,
        models=len(runs),
        noise_runs=sum(n > 1 for n in counted),
        checkpoints=max(counted, default=0),
        apart=pairs_apart(scores, noisy, last),
        trend=trend(noisy, last),
    )


def _signal(scores: np.ndarray, name: str) -> float | None:
    if len(scores) < 2 or np.mean(scores) == 0:
        return None
    if name.endswith("discrepancy") and (scores.min() < 0 or scores.max() > 1):
        return None
    return SIGNALS[name](scores)


def pairs_apart(scores: Mapping[str, float], noise_runs: Runs, last: int = 30) -> float | None:
    """Return the share of the pairs of models whose scores differ by more than two checkpoints of one model would.

    The bar is 1.96 * sqrt(2) * s with s the root mean square over runs of the last checkpoints' sd (n - 1), so one
    pair in twenty of equal models passes it (the measure is our own). None without noise or pairs.
    """
    parts = [one for one in window(noise_runs, last).values() if len(one) > 1]
    if not parts or len(scores) < 2:
        return None
    bar = Z95 * sqrt(2 * float(np.mean([np.var(one, ddof=1) for one in parts])))
    return float(np.mean(_pairwise(np.array(list(scores.values()))) > bar))


def trend(runs: Runs, last: int = 30) -> float | None:
    """Return the share of the last checkpoints' variance that a straight line explains (adjusted R2), mean over runs.

    Near 0 for noise; near 1 where the model still learns, so that the checkpoints' spread is no noise. Runs of fewer
    than four checkpoints, or of equal scores, are left out.
    """
    shares = []
    for scores in window(runs, last).values():
        n = len(scores)
        if n >= 4 and np.ptp(scores) > 0:
            r = np.corrcoef(np.arange(n), scores)[0, 1]
            shares.append(1 - (1 - r * r) * (n - 1) / (n - 2))
    return float(np.mean(shares)) if shares else None


def decision_accuracy(early: Mapping[str, float], final: Mapping[str, float], *, compat: bool = False) -> float | None:
    """Return the share of pairs of models that two rankings put in the same order.

    A pair tied in either ranking counts half: a coin would have to decide. `compat` is the reference's rule
    (`decision_acc_fast`): over pairs in the order of the models' names, "first is greater" has to be equally true of
    both, so a tie agrees with "less" and what it counts depends on the names.

    Args:
        early: model -> score, higher is better (negate losses); of an early checkpoint, or of a small model.
        final: the same models' scores in the end, or at the large size.
    """
    agreements = []
    for one, other in combinations(sorted(early.keys() & final.keys()), 2):
        before, after = early[one] - early[other], final[one] - final[other]
        if compat:
            agreements.append(float((before > 0) == (after > 0)))
        else:
            agreements.append(0.5 if 0 in (before, after) else float((before > 0) == (after > 0)))
    return float(np.mean(agreements)) if agreements else None


def averaged_runs(runs: Runs, k: int) -> dict[str, list[float]]:
    """Return the moving averages over k checkpoints of every run that has as many."""
    kernel = np.full(k, 1 / k)
    return {m: np.convolve(np.asarray(s, float), kernel, "valid").tolist() for m, s in runs.items() if len(s) >= k}


def log_correlation(ratios: Sequence[float], accuracies: Sequence[float]) -> float | None:
    """Return Pearson's r of log ratios and decision accuracies over benchmarks; None for fewer than three."""
    pairs = [(np.log(ratio), accuracy) for ratio, accuracy in zip(ratios, accuracies, strict=True) if ratio > 0]
    if len(pairs) < 3 or any(np.ptp(column) == 0 for column in zip(*pairs, strict=True)):
        return None
    return float(np.corrcoef(*zip(*pairs, strict=True))[0, 1])
