"""From what a recipe asks of its tasks to whole numbers of draws: small pure functions.

A *draw* is one reading of one row. Every scheme ends in draws an epoch for each task; `data_recipes.order` puts them in
order. Shares may be asked in rows or in tokens; either way what is given is counted in draws, exactly.
"""

from collections.abc import Sequence

import numpy as np


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """Divide `total` in proportion to `weights`: whole parts first, then the largest remainders (ties: the first).

    Raises:
        ValueError: all weights are zero although something is to be divided.
    """
    exact = np.asarray(weights, dtype=float)
    if total == 0:
        return [0] * len(exact)
    if exact.sum() <= 0:
        raise ValueError("all shares are zero")
    exact = exact / exact.sum() * total
    parts = np.floor(exact).astype(np.int64)
    short = total - int(parts.sum())
    order = np.argsort(-(exact - parts), kind="stable")
    parts[order[:short]] += 1
    return parts.tolist()


def temperature_weights(sizes: Sequence[int], temperature: float, cap: int | None = None) -> list[float]:
    """Return ``min(n, cap) ** (1 / T)`` for each size: T = 1 is proportional, a large T nearly equal (T5,
    1910.10683)."""
    return [min(size, cap or size) ** (1 / temperature) for size in sizes]


def unimax(sizes: Sequence[int], budget: float, max_epochs: float) -> list[float]:
    """Return each task's part of `budget`: equal parts, but no task more than `max_epochs` times its size.

    What a small task cannot take is shared by the larger ones, smallest first (UniMax, 2304.09151, algorithm 1). The
    parts add up to less than `budget` where every task is at its limit.
    """
    parts = [0.0] * len(sizes)
    left = float(budget)
    for done, task in enumerate(sorted(range(len(sizes)), key=lambda task: sizes[task])):
        parts[task] = min(left / (len(sizes) - done), max_epochs * sizes[task])
        left -= parts[task]
    return parts


def allocate(weights: Sequence[float], total: int, lower: Sequence[int], upper: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `weights` with a least and a most for each task.

    A task beyond a bound gets the bound, and the others share the rest in proportion, until none is beyond one.

    Raises:
        ValueError: the bounds leave no way to reach `total`.
    """
    if sum(lower) > total:
        raise ValueError(f"the least rows of the tasks add up to {sum(lower)}, more than the {total} draws of an epoch")
    reachable = sum(most for weight, most in zip(weights, upper, strict=True) if weight > 0)
    reachable += sum(least for weight, least in zip(weights, lower, strict=True) if weight <= 0)
    if reachable < total:
        raise ValueError(f"the tasks' limits allow {reachable} draws an epoch, fewer than the {total} asked for")
    fixed: dict[int, int] = {task: lower[task] for task in range(len(weights)) if weights[task] <= 0}
    while True:
        free = [task for task in range(len(weights)) if task not in fixed]
        rest = total - sum(fixed.values())
        parts = dict(zip(free, largest_remainder([weights[task] for task in free], rest), strict=True)) if free else {}
        over = {task: upper[task] for task in free if parts[task] > upper[task]}
        under = {task: lower[task] for task in free if parts[task] < lower[task]}
        # the larger breach first: settling both at once could overshoot (the usual care in water filling)
        excess = sum(parts[task] - most for task, most in over.items())
        lack = sum(least - parts[task] for task, least in under.items())
        if not over and not under:
            return [fixed.get(task, parts.get(task, 0)) for task in range(len(weights))]
        fixed |= over if excess >= lack else under


def scheduled(points: Sequence[tuple[float, Sequence[float]]], fraction: float) -> list[float]:
    """Return the shares at `fraction` of training, straight between the `points` (at, shares), level beyond them."""
    at = [point[0] for point in points]
    columns = zip(*(point[1] for point in points), strict=True)
    return [float(np.interp(fraction, at, column)) for column in columns]


def normalised(weights: Sequence[float]) -> list[float]:
    """Return the weights divided by their sum.

    Raises:
        ValueError: the sum is not positive.
    """
    total = float(sum(weights))
    if total <= 0:
        raise ValueError("all shares are zero")
    return [weight / total for weight in weights]


def online_data_mixing(estimates: Sequence[float], turn: int) -> list[float]:
    """Return the shares of the next window from the tasks' reward estimates (Exp3, as in Online Data Mixing,
    2312.02406).

    ``pi_i = (1 - K e_t) softmax(e_{t-1} R)_i + e_t`` with ``e_t = min(1/K, sqrt(ln K / (K t)))``: uniform at first,
    greedier towards the larger estimates as the turns go by, never below ``e_t``. (The formula is recalled, not
    re-read.)

    Args:
        estimates: R, one a task, such as moving averages of ``loss / share``.
        turn: number of the window, from 1.
    """
    k = len(estimates)
    if k == 1:
        return [1.0]

    def exploration(t: int) -> float:
        return min(1 / k, float(np.sqrt(np.log(k) / (k * t))))

    scaled = exploration(max(turn - 1, 1)) * np.asarray(estimates, dtype=float)
    greedy = np.exp(scaled - scaled.max())
    now = exploration(turn)
    return ((1 - k * now) * greedy / greedy.sum() + now).tolist()
