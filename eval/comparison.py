"""Which rows of a benchmark can be told apart: paired tests between any two, corrected for their number, and ranks.

The tests are paired by item and keep clusters of dependent items together. McNemar's asks whether one row is right
more often where only one of the two is; the bootstrap asks the same of the mean scores, whatever they are. Ranks are
given as ranges: a row is placed after those that are better and before those that are worse beyond doubt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt

import numpy as np

from eval.statistics import Items, covariance, influences, means, sum_by

LEVEL = 0.05
DRAWS = 2000
"""Resamples behind an interval."""
BLOCK = 250
"""Resamples held in memory at a time."""


@dataclass(frozen=True)
class Pair:
    """Two rows on the items that both answered; `ours` minus `theirs`, as shares."""

    ours: int
    theirs: int
    difference: float
    low: float
    high: float
    standard_error: float
    items: int
    left_out: int
    """Items that only one of the two answered."""
    won: int
    """Items fully right in ours only."""
    lost: int
    mcnemar: float
    """p of McNemar's exact test on `won` and `lost`."""
    p: float
    """p of the bootstrap."""
    corrected_mcnemar: float = 1.0
    corrected: float = 1.0
    """Both after Holm's correction over all pairs of the benchmark."""

    @property
    def told_apart(self) -> bool:
        """The corrected bootstrap supports a difference."""
        return self.corrected < LEVEL


def mcnemar(won: int, lost: int) -> float:
    """Return the two-sided p of McNemar's exact test: how rarely a fair coin splits `won` + `lost` so unevenly.

    McNemar 1947; the exact form is the binomial test at one half.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's step-down rule (1979), which bounds the chance of any false finding."""
    p = np.asarray(values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def rank_ranges(rows: Sequence[int], pairs: Sequence[Pair]) -> dict[int, tuple[int, int]]:
    """Return row -> best and worst rank that the corrected tests leave open.

    One plus the number of rows that are better, and the number of rows less those that are worse. As the correction
    holds for all pairs at once, so do the ranges (Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for Ranks").
    """
    better = dict.fromkeys(rows, 0)
    worse = dict.fromkeys(rows, 0)
    for pair in pairs:
        if pair.told_apart:
            first, second = (pair.ours, pair.theirs) if pair.difference > 0 else (pair.theirs, pair.ours)
            better[second] += 1
            worse[first] += 1
    return {row: (1 + better[row], len(rows) - worse[row]) for row in rows}


def compare_all(items: Items, scores: np.ndarray, *, seed: int = 0) -> list[Pair]:
    """Compare any two rows of a benchmark.

    The interval is the percentile interval of the paired cluster bootstrap: clusters are drawn with replacement within
    their stratum, all rows on the same draws. The p value is that of the wild cluster bootstrap under no difference:
    the sign of each cluster's difference is drawn anew (Cameron, Gelbach and Miller 2008, Rademacher weights). For
    plain 0/1 scores that is McNemar's exact test by simulation, and it stays honest for few items.

    Args:
        items: the n items, their tasks and clusters.
        scores: (n, rows) scores in [0, 1]; NaN where a row did not answer.
        seed: of the draws.

    Returns:
        A pair for any two rows (the earlier first) that have items in common.
    """
    answered = ~np.isnan(scores)
    masks: dict[bytes, np.ndarray] = {}
    members: dict[bytes, list[tuple[int, int]]] = {}
    for ours, theirs in combinations(range(scores.shape[1]), 2):
        both = answered[:, ours] & answered[:, theirs]
        if both.any():
            masks[both.tobytes()] = both
            members.setdefault(both.tobytes(), []).append((ours, theirs))
    if not members:
        return []
    groups = [_Shared(items, scores, masks[key], members[key]) for key in members]
    first = np.cumsum([0, *[len(group.rows) for group in groups]])
    places = np.concatenate([group.places + start for group, start in zip(groups, first, strict=False)])
    shifts = _resampled(items, np.concatenate([group.moved for group in groups], axis=1), places, seed)
    values = _signs_drawn(np.concatenate([group.sums for group in groups], axis=1), places, seed)
    pairs = []
    for group in groups:
        for ours, theirs in group.pairs:
            number = len(pairs)
            a, b = group.table[:, group.rows.index(ours)], group.table[:, group.rows.index(theirs)]
            won, lost = int(((a == 1) & (b < 1)).sum()), int(((b == 1) & (a < 1)).sum())
            difference = float(means(group.items, (a - b)[:, None])[0])
            low, high = np.quantile(shifts[:, number], [0.025, 0.975]) if group.items.num_clusters > 1 else (-2, 2)
            pairs.append(
                Pair(
                    ours=ours,
                    theirs=theirs,
                    difference=difference,
                    low=max(-1.0, difference + float(low)),
                    high=min(1.0, difference + float(high)),
                    standard_error=sqrt(float(covariance(group.items, (a - b)[:, None])[0, 0])),
                    items=len(a),
                    left_out=int((answered[:, ours] ^ answered[:, theirs]).sum()),
                    won=won,
                    lost=lost,
                    mcnemar=mcnemar(won, lost),
                    p=values[number],
                )
            )
    corrected = holm([pair.p for pair in pairs])
    exact = holm([pair.mcnemar for pair in pairs])
    pairs = [
        replace(pair, corrected=p, corrected_mcnemar=q) for pair, p, q in zip(pairs, corrected, exact, strict=True)
    ]
    return sorted(pairs, key=lambda pair: (pair.ours, pair.theirs))


class _Shared:
    """The items that some pairs of rows have in common, and what the bootstraps need of them."""

    def __init__(self, items: Items, scores: np.ndarray, both: np.ndarray, pairs: list[tuple[int, int]]) -> None:
        self.pairs = pairs
        self.rows = sorted({row for pair in pairs for row in pair})
        self.places = np.array([[self.rows.index(row) for row in pair] for pair in pairs])
        self.items = items.where(both)
        self.table = scores[both][:, self.rows]
        clusters = np.unique(items.clusters[both])
        self.moved, self.sums = np.zeros((2, items.num_clusters, len(self.rows)))
        self.moved[clusters] = influences(self.items, self.table)
        # less the first row, which changes no difference and leaves zeros where all rows agree
        weighed = self.items.weights[:, None] * (self.table - self.table[:, :1])
        self.sums[clusters] = sum_by(self.items.clusters, weighed)


def _resampled(items: Items, moved: np.ndarray, pairs: np.ndarray, seed: int) -> np.ndarray:
    """Return (DRAWS, pairs) shifts of the differences when clusters are drawn with replacement within strata."""
    generator = np.random.default_rng(seed)
    shifts = []
    for start in range(0, DRAWS, BLOCK):
        rows = min(BLOCK, DRAWS - start)
        counts = np.zeros((rows, items.num_clusters))
        for number in range(len(items.clusters_by_stratum)):
            inside = np.flatnonzero(items.stratum_of_cluster == number)
            drawn = generator.integers(0, len(inside), (rows, len(inside))) + len(inside) * np.arange(rows)[:, None]
            counts[:, inside] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        shift = (counts - 1) @ moved
        shifts.append(shift[:, pairs[:, 0]] - shift[:, pairs[:, 1]])
    return np.concatenate(shifts)


def _signs_drawn(sums: np.ndarray, pairs: np.ndarray, seed: int) -> list[float]:
    """Return how often, for each pair, random signs of the clusters' differences make one as large as was seen."""
    generator = np.random.default_rng(seed)
    sums = sums[np.any(sums != 0, axis=1)]
    resamples = max(10_000, 80 * len(pairs))  # enough for the smallest p to outlive the correction
    seen = sums.sum(axis=0)
    seen = np.abs(seen[pairs[:, 0]] - seen[pairs[:, 1]])
    extreme = np.zeros(len(pairs))
    for start in range(0, resamples, BLOCK):
        rows, columns = min(BLOCK, resamples - start), len(sums)
        bits = np.frombuffer(generator.bytes(rows * ((columns + 7) // 8)), np.uint8).reshape(rows, -1)
        drawn = (np.unpackbits(bits, axis=1)[:, :columns] * 2.0 - 1.0) @ sums
        extreme += (np.abs(drawn[:, pairs[:, 0]] - drawn[:, pairs[:, 1]]) >= seen - 1e-12).sum(axis=0)
    return ((extreme + 1) / (resamples + 1)).tolist()
