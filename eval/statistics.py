"""Intervals for accuracies, for means over tasks and for paired differences between models.

Error bars follow "Adding Error Bars to Evals" (arXiv 2411.00640): normal intervals on item-level scores, differences
paired by item. A mean over tasks gives every task the same weight; its variance is that of a stratified mean.
"""

from math import sqrt

Z95 = 1.959963984540054
Scores = dict[str, dict[str, float]]
"""task -> item id -> score in [0, 1]"""


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson interval (low, high) of a share, each in [0, 1]."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _mean_and_variance(values: list[float]) -> tuple[float, float]:
    n = len(values)
    mean = sum(values) / n
    # one item tells nothing of its spread: count it as the widest a score in [0, 1] can have
    return mean, sum((value - mean) ** 2 for value in values) / (n - 1) / n if n > 1 else 0.25


def mean_over_tasks(scores: Scores) -> tuple[float, float]:
    """Return the mean over tasks, each weighing the same, and the half-width of its 95 % interval."""
    parts = [_mean_and_variance(list(items.values())) for items in scores.values()]
    return sum(mean for mean, _ in parts) / len(parts), Z95 * sqrt(sum(v for _, v in parts)) / len(parts)


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
