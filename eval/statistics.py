"""Intervals for accuracies, for means over items or tasks, and for paired differences between models.

Error bars follow "Adding Error Bars to Evals" (arXiv 2411.00640): errors of item-level scores that are robust to
clusters of dependent items, and differences paired by item. A ``micro`` mean gives every item the same weight; a
``macro`` mean gives it to every task, and its variance is that of a stratified mean.

Intervals of shares are Wilson's. Where scores are fractions, items hang together or tasks are weighed, Wilson's
interval is taken at the effective number of items, the number of independent 0/1 scores that would vary as much
(Dean and Pagano 2015, "Evaluating Confidence Interval Methods for Binomial Proportions in Clustered Surveys"): unlike
the normal interval it stays in [0, 1] and keeps a width at 0 % and 100 %.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from typing import TypeVar

import numpy as np

T = TypeVar("T")

Z95 = 1.959963984540054
Scores = dict[str, dict[str, float]]
"""task -> item id -> score in [0, 1]"""
WIDEST = 0.25
"""The widest variance of a score in [0, 1]: assumed of a single item, which tells nothing of its spread."""


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson interval (low, high) of a share, each in [0, 1]."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(max(0.0, share * (1 - share)) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Items:
    """How n items are weighed and which hang together."""

    tasks: np.ndarray
    """(n,) the task of each item, counted from 0."""
    clusters: np.ndarray
    """(n,) the cluster of each item, counted from 0; an independent item is a cluster of its own."""
    micro: bool
    """Every item weighs the same; false: every task does."""

    @classmethod
    def of(cls, keys: Sequence[tuple[str, str]], clusters: Mapping[str, str], *, micro: bool) -> "Items":
        """Return the items named by (task, id); `clusters` names the cluster of those that share one."""
        tasks = [task for task, _ in keys]
        groups = [("cluster", clusters[key]) if key in clusters else (task, key) for task, key in keys]
        return cls(_codes(tasks), _codes(groups), micro)

    def __len__(self) -> int:
        return len(self.tasks)

    def where(self, kept: np.ndarray) -> "Items":
        """Return the items kept by a mask or by their positions."""
        return Items(_recount(self.tasks[kept]), _recount(self.clusters[kept]), self.micro)

    @cached_property
    def weights(self) -> np.ndarray:
        """(n,) weights that sum to one."""
        if self.micro:
            return np.full(len(self), 1 / len(self))
        sizes = np.bincount(self.tasks)
        return 1 / (len(sizes) * sizes[self.tasks])

    @cached_property
    def strata(self) -> np.ndarray:
        """(n,) within what items vary: all of them for micro, the task for macro.

        Tasks of a single cluster, which tell nothing of their spread, are taken together (collapsed strata, as
        surveys do), a lone one with the smallest other task.
        """
        if self.micro:
            return np.zeros_like(self.tasks)
        counts = self._clusters_of(self.tasks)
        lonely = np.flatnonzero(counts == 1)
        if len(lonely) == 1 and len(counts) > 1:
            lonely = np.argsort(counts, kind="stable")[:2]
        merged = np.arange(len(counts))
        merged[lonely] = lonely[0] if len(lonely) else 0
        return _recount(merged[self.tasks])

    @cached_property
    def clusters_by_stratum(self) -> np.ndarray:
        """(strata,) how many clusters have an item in each."""
        return self._clusters_of(self.strata)

    def _clusters_of(self, strata: np.ndarray) -> np.ndarray:
        return np.bincount(np.unique(np.stack([strata, self.clusters]), axis=1)[0])

    @property
    def num_clusters(self) -> int:
        """Number of clusters."""
        return int(self.clusters.max(initial=-1)) + 1

    @property
    def independent(self) -> bool:
        """No two items share a cluster."""
        return self.num_clusters == len(self)

    @cached_property
    def stratum_of_cluster(self) -> np.ndarray:
        """(clusters,) the stratum of each cluster's first item."""
        strata = np.zeros(self.num_clusters, np.int64)
        strata[self.clusters[::-1]] = self.strata[::-1]
        return strata


def _codes(values: Sequence[object]) -> np.ndarray:
    numbers: dict[object, int] = {}
    return np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int64, len(values))


def _recount(codes: np.ndarray) -> np.ndarray:
    return np.unique(codes, return_inverse=True)[1]


def sum_by(groups: np.ndarray, values: np.ndarray, count: int | None = None) -> np.ndarray:
    """Return (groups, k) sums of the (n, k) values of each group."""
    count = int(groups.max(initial=-1)) + 1 if count is None else count
    columns = [np.bincount(groups, column, minlength=count) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def means(items: Items, scores: np.ndarray) -> np.ndarray:
    """Return the (k,) weighted means of (n, k) scores."""
    return items.weights @ scores


def influences(items: Items, scores: np.ndarray) -> np.ndarray:
    """Return (clusters, k): how far each cluster of items moves the means of (n, k) scores.

    The sums over a cluster of weighted residuals from the mean of their stratum, scaled by sqrt(G / (G - 1)) for the G
    clusters of that stratum.
    """
    return _influences(items.weights, items.strata, items.clusters, items.clusters_by_stratum, scores)


def _influences(
    weights: np.ndarray, strata: np.ndarray, clusters: np.ndarray, counts: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    centre = sum_by(strata, weights[:, None] * scores) / np.bincount(strata, weights)[:, None]
    scale = np.sqrt(counts / np.maximum(counts - 1, 1))
    return sum_by(clusters, (weights * scale[strata])[:, None] * (scores - centre[strata]))


def covariance(items: Items, scores: np.ndarray) -> np.ndarray:
    """Return the (k, k) covariance of the means of (n, k) scores, robust to clusters (arXiv 2411.00640).

    The variance of the difference of rows a and b is C[a, a] + C[b, b] - 2 C[a, b].
    """
    if items.num_clusters == 1:
        return WIDEST * np.eye(scores.shape[1])
    moved = influences(items, scores)
    return moved.T @ moved


def _variance(items: Items, values: np.ndarray) -> tuple[float, float]:
    """Return the variance of the mean of (n,) values and its degrees of freedom.

    Those of Welch and Satterthwaite over strata; clusters less strata where nothing varies. At least one.
    """
    if items.num_clusters == 1:
        return WIDEST, 1.0
    spare = items.clusters_by_stratum - 1
    parts = np.bincount(items.stratum_of_cluster, influences(items, values[:, None])[:, 0] ** 2, minlength=len(spare))
    weighed = float((parts**2 / np.maximum(spare, 1)).sum())
    return float(parts.sum()), max(1.0, float(parts.sum()) ** 2 / weighed if weighed > 0 else float(spare.sum()))


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float
    standard_error: float
    n: int


def share(items: Items, scores: np.ndarray) -> Estimate:
    """Return the mean of (n,) scores in [0, 1] with its Wilson interval at the effective number of items.

    Plain 0/1 scores of independent items, weighed alike, get the plain Wilson interval. Where nothing varies, the
    effective number is that of the clusters as they are weighed.
    """
    mean = float(np.clip(means(items, scores[:, None])[0], 0, 1))
    variance, freedom = _variance(items, scores)
    alike = items.micro or items.tasks.max(initial=0) == 0
    if alike and items.independent and np.isin(scores, (0, 1)).all():
        low, high = wilson(float(scores.sum()), len(items))
        return Estimate(mean, low, high, sqrt(variance), len(items))
    if variance > 1e-18 and 0 < mean < 1:
        effective = mean * (1 - mean) / variance
    else:
        effective = 1 / float((np.bincount(items.clusters, items.weights) ** 2).sum())
    low, high = wilson(mean * effective, effective, t95(freedom))
    return Estimate(mean, low, high, sqrt(variance), len(items))


def mean(items: Items, values: np.ndarray) -> Estimate:
    """Return the mean of (n,) values of any range with its normal (t) interval."""
    value = float(means(items, values[:, None])[0])
    variance, freedom = _variance(items, values)
    half = t95(freedom) * sqrt(variance)
    return Estimate(value, value - half, value + half, sqrt(variance), len(items))


def half_width_by_task(items: Items, scores: np.ndarray) -> float | None:
    """Return the 95 % half-width of the mean of (n,) scores with tasks (subjects) as clusters; None for a single task.

    It answers another question than `share`: how far the mean could be from that over all subjects one might have
    asked about, of which these are a sample. With few tasks the t quantile with T - 1 degrees of freedom is used.
    """
    tasks = int(items.tasks.max(initial=0)) + 1
    if tasks == 1:
        return None
    moved = _influences(items.weights, np.zeros_like(items.tasks), items.tasks, np.array([tasks]), scores[:, None])
    return t95(tasks - 1) * sqrt(float((moved**2).sum()))


def t95(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _table(scores: Scores) -> tuple[Items, np.ndarray]:
    keys = [(task, item) for task, items in scores.items() for item in items]
    values = np.array([scores[task][item] for task, item in keys], float)
    return Items.of(keys, {}, micro=False), values[:, None]


def mean_over_tasks(scores: Scores) -> tuple[float, float]:
    """Return the mean over tasks, each weighing the same, and the half-width of its 95 % interval."""
    items, values = _table(scores)
    return float(means(items, values)[0]), Z95 * sqrt(float(covariance(items, values)[0, 0]))


def paired_difference(ours: Scores, theirs: Scores) -> tuple[float, float]:
    """Return mean over tasks of (ours - theirs) on the items both answered, and its 95 % half-width.

    Raises:
        ValueError: a task has no item in common.
    """
    differences: Scores = {}
    for task in ours:
        common = ours[task].keys() & theirs.get(task, {}).keys()
        if not common:
            raise ValueError(f"no item of {task} was answered by both")
        differences[task] = {item: ours[task][item] - theirs[task][item] for item in sorted(common)}
    return mean_over_tasks(differences)


def bootstrap_interval(
    units: Sequence[T], statistic: Callable[[list[T]], float | None], *, seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of `statistic` over independent units (items or clusters).

    Args:
        statistic: of a list of units drawn with replacement; None where it is not defined on that draw (left out).

    Raises:
        ValueError: there is no unit, or the statistic is defined on no draw.
    """
    if not units:
        raise ValueError("no units to draw from")
    generator = random.Random(seed)
    drawn = [statistic(generator.choices(units, k=len(units))) for _ in range(resamples)]
    values = sorted(value for value in drawn if value is not None)
    if not values:
        raise ValueError("the statistic is defined on no draw")
    return values[int(0.025 * (len(values) - 1))], values[ceil(0.975 * (len(values) - 1))]
