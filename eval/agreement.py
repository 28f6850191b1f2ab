"""How well judges agree: Cohen's kappa, rank correlation, and pairs judged in both orders.

Pure functions over plain lists. What could not be read is None, and every function says what that counts for.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Return Cohen's kappa of two judges' labels of the same items: (agreement - chance) / (1 - chance).

    Chance is how often they would agree if each drew labels at his own rates (Cohen 1960). None is a label like any
    other, so that a missing answer agrees with no answer.

    Returns:
        1 at full agreement, 0 at chance; None where it is not defined: no items, or both always give the same label.
    """
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True))
    theirs = Counter(second)
    chance = sum(count * theirs[label] for label, count in Counter(first).items())  # in n^2-ths
    return (observed * n - chance) / (n * n - chance) if n * n != chance else None


def _ranks(values: Sequence[float]) -> list[float]:
    """Return 1 for the smallest, ...; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2 + 1
        start = end + 1
    return ranks


def spearman(predicted: Sequence[float | None], gold: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation of predicted with true values, in [-1, 1].

    A missing prediction stands at the mean rank: it says nothing either way, so it pulls the correlation towards 0 by
    as much as it leaves unexplained. Leaving such items out instead would reward a judge for silence. Without missing
    predictions this is the usual coefficient, equal values sharing their ranks.

    Returns:
        None where it is not defined: fewer than two items, or one side does not vary.
    """
    known = [value for value in predicted if value is not None]
    ranked = iter(_ranks(known))
    centre = (len(known) + 1) / 2
    x = [0.0 if value is None else next(ranked) - centre for value in predicted]
    middle = (len(gold) + 1) / 2
    y = [rank - middle for rank in _ranks(gold)]
    spread = sqrt(sum(a * a for a in x) * sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / spread if spread else None


FIRST, SECOND, TIE = "1", "2", "tie"
"""What a judge of two outputs can prefer: output 1 or output 2, wherever they were shown, or neither."""

SWAPPED = {FIRST: SECOND, SECOND: FIRST, TIE: TIE, None: None}
"""The output that stands in a place when the two have changed places."""

Judged = tuple[str, str | None, str | None]
"""A pair: (right output, preferred as given, preferred when swapped), each FIRST, SECOND or TIE; None: unread.

"Preferred" names the output, not the place: a judge who always takes the first place prefers FIRST as given and SECOND
when swapped.
"""


@dataclass(frozen=True)
class Swap:
    """How a judge fared who saw every pair in both orders: counts of pairs, and of choices."""

    pairs: int
    right_as_given: int
    right_swapped: int
    right_both: int
    agreeing: int
    """Both orders were read, and the same output (or tie) was preferred."""
    unread_both: int
    """Neither order could be read."""
    first_shown: int
    """Choices of whatever was shown first."""
    choices: int
    """Choices of either output, of both orders; ties and unread answers are none."""


def swap_counts(judged: Iterable[Judged]) -> Swap:
    """Count over pairs; these are the counts of LLMBar's evaluate.py, whose ``equal`` is `agreeing` + `unread_both`."""
    n = right_as_given = right_swapped = right_both = agreeing = unread = first = choices = 0
    for label, as_given, swapped in judged:
        n += 1
        right_as_given += as_given == label
        right_swapped += swapped == label
        right_both += as_given == swapped == label
        agreeing += as_given == swapped and as_given is not None
        unread += as_given is None and swapped is None
        first += (as_given == FIRST) + (swapped == SECOND)
        choices += (as_given in (FIRST, SECOND)) + (swapped in (FIRST, SECOND))
    return Swap(n, right_as_given, right_swapped, right_both, agreeing, unread, first, choices)
