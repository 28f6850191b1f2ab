"""Paired tests against numbers worked out by hand, against each other, and by simulation."""

import csv
import gzip
import os
from math import comb
from pathlib import Path

import numpy as np
import pytest

from eval.comparison import compare_all, holm, mcnemar, rank_ranges
from eval.statistics import Items


def independent(n, tasks=1, micro=True):
    return Items(np.arange(n) % tasks, np.arange(n), micro)


def table(*rows):
    return np.array(rows, float).T


def test_mcnemar_is_a_fair_coin():
    assert mcnemar(1, 9) == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    assert mcnemar(0, 5) == mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1.0
    assert 0 < mcnemar(4000, 5000) < 1e-20


def test_holm_on_worked_numbers():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_the_bootstrap_agrees_with_mcnemar_on_plain_scores():
    generator = np.random.default_rng(3)
    first = (generator.random(300) < 0.5).astype(float)
    second = np.where(generator.random(300) < 0.2, generator.random(300) < 0.7, first).astype(float)
    (pair,) = compare_all(independent(300), table(first, second))
    assert pair.won == ((first == 1) & (second == 0)).sum() and pair.lost == ((first == 0) & (second == 1)).sum()
    assert pair.difference == pytest.approx((pair.won - pair.lost) / 300)
    assert pair.p == pytest.approx(pair.mcnemar, abs=0.01)
    assert pair.low == pytest.approx(pair.difference - 1.96 * pair.standard_error, abs=0.01)
    assert pair.high == pytest.approx(pair.difference + 1.96 * pair.standard_error, abs=0.01)


def test_three_items_show_nothing_however_they_fall():
    (pair,) = compare_all(independent(3), table([1, 1, 1], [0, 0, 0]))
    assert pair.difference == 1 and pair.mcnemar == 0.25
    assert pair.p == pytest.approx(0.25, abs=0.02) and not pair.told_apart


def test_copies_of_an_item_are_no_evidence():
    first, second = np.array([1.0, 1, 1, 1, 0, 0]), np.array([0.0, 0, 0, 0, 0, 0])
    alone = Items(np.zeros(6, int), np.arange(6), True)
    copied = Items(np.zeros(30, int), np.repeat(np.arange(6), 5), True)
    (few,) = compare_all(alone, table(first, second))
    (many,) = compare_all(copied, table(np.repeat(first, 5), np.repeat(second, 5)))
    assert many.p == pytest.approx(few.p, abs=0.02) and few.p > 0.1
    assert many.mcnemar < 1e-5, "McNemar's test takes every item for an independent one"
    assert many.standard_error == pytest.approx(few.standard_error)


def test_the_same_rows_are_never_told_apart():
    scores = (np.random.default_rng(0).random(50) < 0.5).astype(float)
    (pair,) = compare_all(independent(50), table(scores, scores))
    assert (pair.difference, pair.low, pair.high, pair.p, pair.mcnemar) == (0, 0, 0, 1, 1)


def test_macro_differences_give_every_task_the_same_weight():
    layout = Items(np.array([0] * 90 + [1] * 10), np.arange(100), micro=False)
    ours, theirs = np.zeros(100), np.zeros(100)
    ours[90:] = 1.0
    (macro,) = compare_all(layout, table(ours, theirs))
    (micro,) = compare_all(Items(layout.tasks, layout.clusters, True), table(ours, theirs))
    assert (macro.difference, micro.difference) == (pytest.approx(0.5), pytest.approx(0.1))


def test_items_that_only_one_row_answered_are_left_out_and_counted():
    ours = [1.0, 1.0, 1.0, 0.0, np.nan, np.nan]
    theirs = [np.nan, 0.0, 1.0, 0.0, 1.0, np.nan]
    (pair,) = compare_all(independent(6), table(ours, theirs))
    assert (pair.items, pair.left_out, pair.won, pair.lost) == (3, 2, 1, 0)
    assert pair.difference == pytest.approx(1 / 3)
    nothing = [np.nan] * 4 + [1.0, 1.0]
    assert compare_all(independent(6), table([1.0] * 4 + [np.nan] * 2, nothing)) == []
    assert compare_all(independent(6), table(ours)) == []


def test_rows_with_other_gaps_are_compared_as_if_they_were_alone():
    generator = np.random.default_rng(5)
    scores = (generator.random((60, 3)) < [0.3, 0.5, 0.8]).astype(float)
    scores[:5, 0], scores[50:, 2] = np.nan, np.nan
    layout = independent(60, tasks=3, micro=False)
    for pair in compare_all(layout, scores):
        both = ~np.isnan(scores[:, [pair.ours, pair.theirs]]).any(axis=1)
        (alone,) = compare_all(layout.where(both), scores[both][:, [pair.ours, pair.theirs]])
        assert pair.difference == pytest.approx(alone.difference) and pair.items == alone.items == both.sum()
        assert pair.standard_error == pytest.approx(alone.standard_error) and pair.p == pytest.approx(alone.p, abs=0.02)


def test_one_cluster_leaves_everything_open():
    (pair,) = compare_all(Items(np.zeros(4, int), np.zeros(4, int), True), table([1, 1, 1, 1], [0, 0, 0, 1]))
    assert (pair.low, pair.high, pair.p) == (-1, 1, 1)


def test_comparisons_are_the_same_every_time():
    scores = np.random.default_rng(1).random((40, 3))
    assert compare_all(independent(40), scores) == compare_all(independent(40), scores)
    assert compare_all(independent(40), scores) != compare_all(independent(40), scores, seed=1)


def test_equal_rows_are_told_apart_no_more_often_than_promised():
    generator = np.random.default_rng(7)
    false, uncorrected = 0, 0
    for _ in range(120):
        hardness = generator.random(60)[:, None]
        pairs = compare_all(independent(60, tasks=3), (generator.random((60, 4)) < hardness).astype(float))
        false += any(pair.told_apart for pair in pairs)
        uncorrected += any(pair.p < 0.05 for pair in pairs)
    assert false <= 0.05 * 120 + 5, "in at most one of twenty boards (two standard errors more)"
    assert uncorrected > 0.12 * 120, "six tests without a correction find something more often"


def test_rank_ranges_follow_from_what_is_told_apart():
    generator = np.random.default_rng(2)
    chances = [0.9, 0.3, 0.32, 0.05]
    pairs = compare_all(independent(400), (generator.random((400, 4)) < chances).astype(float))
    assert rank_ranges(range(4), pairs) == {0: (1, 1), 1: (2, 3), 2: (2, 3), 3: (4, 4)}
    assert rank_ranges([0, 1], []) == {0: (1, 2), 1: (1, 2)}
    assert rank_ranges([5], []) == {5: (1, 1)}


@pytest.mark.data
def test_published_predictions_give_the_paired_statistics_that_were_measured():
    path = Path(os.environ["WHETSTONE_DATA"]) / "mmlu_pro" / "predictions_matrix.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))

    def right(model):
        return np.array([float(row[model] == row["answer_2024_05"]) for row in rows])

    for ours, theirs, points, z, won, lost in (
        ("Mistral-7B-v0.1", "Mistral-7B-v0.2-hf", 0.60, 1.58, 1073, 1001),
        ("Meta-Llama-3-8B", "Meta-Llama-3_1-8B", -2.31, -5.78, None, None),
    ):
        (pair,) = compare_all(independent(len(rows)), table(right(ours), right(theirs)))
        assert 100 * pair.difference == pytest.approx(points, abs=0.005)
        assert pair.difference / pair.standard_error == pytest.approx(z, abs=0.005)
        assert won is None or (pair.won, pair.lost) == (won, lost)
        assert pair.told_apart == (abs(z) > 1.96)
