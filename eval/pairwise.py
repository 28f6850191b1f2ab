"""Benchmarks that show every pair of outputs in both orders: the rows' conventions and the figures.

A pair is two rows with the same ``meta["pair"]``: ``meta["order"]`` is ``given`` or ``swapped``, the answer the letter
of the place where the better output was shown (C: neither is).
"""

from collections import defaultdict
from collections.abc import Callable

from eval.agreement import FIRST, SECOND, SWAPPED, TIE, Judged, Swap, cohen_kappa, swap_counts
from eval.benchmarks import Answered, Metric
from eval.critique_metrics import present, ratio
from eval.statistics import bootstrap_interval

OUTPUTS = {"A": FIRST, "B": SECOND, "C": TIE}
"""The output that stands in a place while the pair is in its own order."""
LETTERS = {output: letter for letter, output in OUTPUTS.items()}

Pair = tuple[str, int]
"""(the pair's name, sample)"""


def answer_in(order: str, better: str) -> str:
    """Return the letter of the place where the `better` output (FIRST, SECOND or TIE) is shown in an order."""
    return LETTERS[better if order == "given" else SWAPPED[better]]


def pair_of(one: Answered) -> Pair:
    """Return the pair that an answer judges."""
    return one.row.meta["pair"], one.sample


def judged_pairs(answered: list[Answered]) -> dict[Pair, Judged]:
    """Return the pairs of which both orders were answered, as `eval.agreement` takes them."""
    by_pair: dict[Pair, dict[str, Answered]] = defaultdict(dict)
    for one in answered:
        by_pair[pair_of(one)][one.row.meta["order"]] = one
    pairs = {}
    for name, orders in by_pair.items():
        if len(orders) == 2:
            as_given, swapped = (OUTPUTS.get(orders[order].verdict.answer or "") for order in ("given", "swapped"))
            pairs[name] = (OUTPUTS[orders["given"].row.answer], as_given, SWAPPED[swapped])
    return pairs


def given_of(answered: list[Answered], pairs: dict[Pair, Judged]) -> list[Answered]:
    """Return the answer to the given order of each judged pair, which stands for the pair in sums over clusters."""
    return [one for one in answered if one.row.meta["order"] == "given" and pair_of(one) in pairs]


def swap_shares(answered: list[Answered]) -> dict[str, Metric]:
    """Return the shares that only two orders can tell, with intervals that resample clusters.

    ``right in both orders`` of pairs; ``swap consistency``, of pairs in which the same output wins in both orders (an
    unread answer is no agreement); ``first shown chosen``, of choices that fell on what was shown first: 50 % without
    position bias, since every pair is turned.
    """
    pairs = judged_pairs(answered)
    given = given_of(answered, pairs)
    counts = {name: swap_counts([judged]) for name, judged in pairs.items()}

    def share(of: Callable[[Swap], int], among: Callable[[Swap], int]) -> Metric | None:
        return ratio(given, lambda one: of(counts[pair_of(one)]), lambda one: among(counts[pair_of(one)]))

    return present(
        {
            "right in both orders": share(lambda one: one.right_both, lambda one: one.pairs),
            "swap consistency": share(lambda one: one.agreeing, lambda one: one.pairs),
            "first shown chosen": share(lambda one: one.first_shown, lambda one: one.choices),
        }
    )


def kappas(answered: list[Answered]) -> dict[str, Metric]:
    """Return Cohen's kappa of the judgments with the truth, and of one order with the other.

    An unread judgment is a label of its own in the first; the second takes pairs of which both orders were read.
    """
    pairs = judged_pairs(answered)
    given = given_of(answered, pairs)
    clusters: dict[str, list[Judged]] = defaultdict(list)
    for one in given:
        clusters[one.row.meta["cluster"]].append(pairs[pair_of(one)])
    units = list(clusters.values())
    found = {}
    for name, statistic in {"kappa": _kappa, "kappa between orders": _kappa_of_orders}.items():
        value = statistic(units)
        if value is not None:
            found[name] = Metric(value, *bootstrap_interval(units, statistic), n=len(given), percent=False)
    return found


def _kappa(clusters: list[list[Judged]]) -> float | None:
    judged = [one for cluster in clusters for one in cluster]
    judgments = [as_given for _, as_given, _ in judged] + [swapped for _, _, swapped in judged]
    return cohen_kappa(judgments, [label for label, _, _ in judged] * 2)


def _kappa_of_orders(clusters: list[list[Judged]]) -> float | None:
    read = [one for cluster in clusters for one in cluster if None not in one]
    return cohen_kappa([as_given for _, as_given, _ in read], [swapped for _, _, swapped in read])
