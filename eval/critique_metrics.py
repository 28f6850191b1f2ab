"""Figures about critiques: every one is a ratio of sums over answers, with an interval that resamples whole clusters.

Accuracies, F1, rates of revision and differences all have that form. What shares a cluster (the right and the wrong
response to one question, the repeated runs of an item) is drawn together.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from eval.benchmarks import Answered, Metric
from eval.statistics import bootstrap_interval, wilson

Value = Callable[[Answered], float]
QUARTERS = (("0-0.25", 0.0, 0.25), ("0.25-0.5", 0.25, 0.5), ("0.5-0.75", 0.5, 0.75), ("0.75-1", 0.75, 1.01))
"""Names and bounds of the quarters of the range of certainty; the lower bound belongs to the quarter."""


def ratio(
    answered: Iterable[Answered], numerator: Value, denominator: Value | None = None, *, signed: bool = False
) -> Metric | None:
    """Return the sum of `numerator` over the sum of `denominator` (None: the number of answers) and its 95 % interval.

    Where all clusters are alike a bootstrap sees no spread; the interval is then as wide as that of a share of 0 among
    as many clusters.

    Args:
        signed: a difference, which may be below 0 or above 1.

    Returns:
        None where the denominators sum to nothing. `n` counts the rows that add to the denominator.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    rows = set()
    for one in answered:
        weight = denominator(one) if denominator else 1.0
        of_cluster = sums[str(one.row.meta.get("cluster", one.row.id))]
        of_cluster[0] += numerator(one)
        of_cluster[1] += weight
        if weight:
            rows.add(one.row.id)
    units = [(top, bottom) for top, bottom in sums.values()]
    value = _quotient(units)
    if value is None:
        return None
    low, high = bootstrap_interval(units, _quotient)
    if high - low < 1e-12:
        half = wilson(0, sum(bottom > 0 for _, bottom in units))[1]
        low, high = value - half, value + half
        low, high = (low, high) if signed else (max(0.0, low), min(1.0, high))
    return Metric(value, low, high, len(rows))


def _quotient(units: list[tuple[float, float]]) -> float | None:
    bottom = sum(unit[1] for unit in units)
    return sum(unit[0] for unit in units) / bottom if bottom else None


def mean_score(answered: Iterable[Answered]) -> Metric | None:
    """Return the mean score, repeated runs of an item weighing alike."""
    return ratio(answered, lambda one: one.score)


def f1(answered: Iterable[Answered], found: Value, there: Value) -> Metric | None:
    """Return 2 TP / (2 TP + FP + FN), pooled over all answers.

    Args:
        found: 1 where the answer says that the positive class is there. An unparsed answer says nothing, so it misses
            what is there and raises no false alarm.
        there: 1 where it is there.
    """
    return ratio(answered, lambda one: 2 * found(one) * there(one), lambda one: found(one) + there(one))


def verdict_metrics(answered: list[Answered]) -> dict[str, Metric]:
    """Return what there is to say of verdicts beside their accuracy.

    ``F1 (incorrect)`` takes the wrong responses as the positive class. The accuracy in which a missing verdict counts
    as correct is the rule of arXiv 2310.04815, appendix F. Certainty is that of the row's ``certainty``.
    """
    wrong = [one for one in answered if one.row.answer == "incorrect"]
    right = [one for one in answered if one.row.answer == "correct"]
    found = {
        "F1 (incorrect)": f1(
            answered,
            lambda one: one.verdict.answer == "incorrect",
            lambda one: one.row.answer == "incorrect",
        ),
        "accuracy on right responses": mean_score(right),
        "accuracy on wrong responses": mean_score(wrong),
        "accuracy, no verdict counted as correct": ratio(
            answered, lambda one: (one.verdict.answer or "correct") == one.row.answer
        ),
        **by_certainty(answered),
    }
    return present(found)


def by_certainty(answered: list[Answered]) -> dict[str, Metric | None]:
    """Return the accuracy in each quarter of the range of certainty; None where no row has such a certainty."""
    known = [one for one in answered if one.row.meta.get("certainty") is not None]
    return {
        f"accuracy, certainty {name}": mean_score([one for one in known if low <= one.row.meta["certainty"] < high])
        for name, low, high in QUARTERS
    }


def by_meta(answered: list[Answered], key: str) -> dict[str, Metric]:
    """Return the accuracy for each value of the rows' `key`, in the order of the values."""
    groups: dict[str, list[Answered]] = defaultdict(list)
    for one in answered:
        groups[str(one.row.meta[key])].append(one)
    return present({f"accuracy, {value}": mean_score(group) for value, group in sorted(groups.items())})


def evenly(answered: list[Answered], key: str) -> Metric | None:
    """Return the accuracy with every value of the rows' `key` weighing alike, and in each both classes.

    Whoever guesses the class from the value (a weak model's style, say) gets a half. Weights are those of all answers
    in every resample. Values with a single class are left out.
    """
    cells = Counter((one.row.meta[key], one.row.answer) for one in answered)
    both = {value for value, _ in cells if cells[value, "correct"] and cells[value, "incorrect"]}

    def weight(one: Answered) -> float:
        return 1 / cells[one.row.meta[key], one.row.answer] if one.row.meta[key] in both else 0.0

    return ratio(answered, lambda one: weight(one) * one.score, weight)


def present(found: dict[str, Metric | None]) -> dict[str, Metric]:
    """Leave out what is not defined on these answers."""
    return {name: metric for name, metric in found.items() if metric is not None}
