"""Kappa, rank correlation and both-orders counts, on numbers worked out by hand and against scipy."""

import random
from math import isclose

import pytest

from eval.agreement import FIRST, SECOND, SWAPPED, TIE, Swap, cohen_kappa, spearman, swap_counts


def test_kappa_is_that_of_the_textbook_table():
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: agreement 0.7, chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert isclose(cohen_kappa(first, second), 0.4)


def test_kappa_of_94_right_in_100_balanced_pairs_is_0_88():
    # the published script maps the same judge's labels 1 and 2 to 1 and 0 and finds 0.26
    gold = ["1"] * 50 + ["2"] * 50
    judged = ["1"] * 47 + ["2"] * 50 + ["1"] * 3
    assert isclose(cohen_kappa(judged, gold), 0.88)


@pytest.mark.parametrize(
    ("first", "second", "kappa"),
    [
        (["a", "b", "c"], ["a", "b", "c"], 1.0),
        (["a", "b"], ["b", "a"], -1.0),
        (["a", "a", "b", "b"], ["a", "b", "a", "b"], 0.0),
        (["a", "b", None, None], ["a", "b", "a", "b"], 1 / 3),
        (["a", "a"], ["a", "a"], None),
        ([], [], None),
    ],
)
def test_kappa_at_its_ends_and_where_it_is_not_defined(first, second, kappa):
    found = cohen_kappa(first, second)
    assert found is kappa if kappa is None else isclose(found, kappa, abs_tol=1e-12)


def test_kappa_refuses_lists_of_different_lengths():
    with pytest.raises(ValueError, match="zip"):
        cohen_kappa(["a"], [])


@pytest.mark.parametrize("seed", range(5))
def test_spearman_without_missing_values_is_scipys(seed):
    from scipy.stats import spearmanr

    draw = random.Random(seed)
    predicted = [draw.randint(1, 7) for _ in range(60)]
    gold = [min(7, max(1, value + draw.randint(-2, 2))) for value in predicted]
    assert isclose(spearman(predicted, gold), spearmanr(predicted, gold).statistic, rel_tol=1e-12)


def test_a_missing_rating_stands_in_the_middle_and_pulls_towards_zero():
    # gold ranks -1.5 .. 1.5; predicted ranks of 1, 2, 3 -> -1, 0, 1, the missing one 0
    gold = [1, 2, 3, 4]
    assert isclose(spearman([1, 2, 3, None], gold), (1.5 + 0 + 0.5) / (2 * 5) ** 0.5)
    assert spearman([1, 2, 3, 4], gold) == 1.0


@pytest.mark.parametrize(
    ("predicted", "gold"), [([], []), ([None, None], [1, 2]), ([3, 3, 3], [1, 2, 3]), ([1, 2], [4, 4]), ([1], [1])]
)
def test_spearman_is_undefined_where_a_side_does_not_vary(predicted, gold):
    assert spearman(predicted, gold) is None


def test_both_orders_of_four_pairs_are_counted():
    judged = [
        (FIRST, FIRST, FIRST),  # right in both
        (FIRST, FIRST, SECOND),  # takes the first place twice
        (SECOND, FIRST, None),  # wrong, then unread
        (TIE, TIE, TIE),  # a tie that is one
        (FIRST, None, None),
    ]
    assert swap_counts(judged) == Swap(
        pairs=5,
        right_as_given=3,
        right_swapped=2,
        right_both=2,
        agreeing=2,
        unread_both=1,
        first_shown=4,  # first as given three times, and the second output when swapped once
        choices=5,
    )
    assert swap_counts([]) == Swap(0, 0, 0, 0, 0, 0, 0, 0)


def test_turning_a_pair_twice_gives_it_back():
    assert all(SWAPPED[SWAPPED[output]] == output for output in (FIRST, SECOND, TIE, None))
