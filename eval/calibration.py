"""Whether stated chances hold: predictions in bins against the shares that came true."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.statistics import wilson


@dataclass(frozen=True)
class Bin:
    """The predictions between two bounds."""

    low: float
    high: float
    n: int
    predicted: float
    """Their mean."""
    actual: float
    """The share of them that came true."""
    interval: tuple[float, float]
    """Wilson's 95 % interval of that share."""


def calibration_bins(predicted: Sequence[float], came_true: Sequence[bool], num_bins: int = 10) -> list[Bin]:
    """Return the bins of equal width over [0, 1] that hold a prediction, from low to high.

    Args:
        predicted: (n,) chances in [0, 1].
        came_true: (n,) what happened.
    """
    chances, outcomes = np.asarray(predicted, float), np.asarray(came_true, bool)
    places = np.minimum((chances * num_bins).astype(int), num_bins - 1)
    bins = []
    for place in np.unique(places).tolist():
        inside = places == place
        n, hits = int(inside.sum()), int(outcomes[inside].sum())
        bounds = place / num_bins, (place + 1) / num_bins
        bins.append(Bin(*bounds, n, float(chances[inside].mean()), hits / n, wilson(hits, n)))
    return bins


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean gap between predicted and actual, each bin weighing as many predictions as it holds (Naeini et
    al. 2015; 1706.04599, equation 3)."""
    return sum(one.n * abs(one.predicted - one.actual) for one in bins) / sum(one.n for one in bins)
