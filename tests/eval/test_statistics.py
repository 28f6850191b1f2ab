"""Intervals against numbers worked out by hand."""

from math import sqrt

import pytest

from eval.statistics import Z95, mean_over_tasks, paired_difference, wilson


def test_wilson_on_worked_numbers():
    low, high = wilson(8, 10)  # z = 1.96: centre (0.8 + 0.19208) / 1.38416, half 0.22658
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 20)[0] == 0 and wilson(20, 20)[1] == 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_mean_gives_every_task_the_same_weight():
    scores = {"small": {"a": 1.0, "b": 0.0}, "large": {str(i): 1.0 for i in range(8)}}
    mean, half = mean_over_tasks(scores)
    assert mean == 0.75
    # variance of the small task's mean: 0.5 / 2 = 0.25; of the large one's: 0
    assert half == pytest.approx(Z95 * sqrt(0.25) / 2)


def test_pairing_removes_what_both_share():
    easy_and_hard = {"t": {str(i): float(i % 2) for i in range(40)}}
    better = {"t": {**easy_and_hard["t"], "0": 1.0, "2": 1.0}}
    difference, half = paired_difference(better, easy_and_hard)
    assert difference == pytest.approx(0.05)
    assert half < mean_over_tasks(better)[1]
    assert paired_difference(better, better) == (0.0, 0.0)


def test_only_common_items_are_compared():
    ours = {"t": {"a": 1.0, "b": 1.0, "x": 1.0}}
    assert paired_difference(ours, {"t": {"a": 0.0, "b": 1.0}})[0] == 0.5
    with pytest.raises(ValueError, match="no item of t"):
        paired_difference(ours, {"t": {"z": 1.0}})
