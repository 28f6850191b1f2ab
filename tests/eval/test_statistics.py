"""Intervals against numbers worked out by hand, and their coverage by simulation."""

from math import sqrt

import numpy as np
import pytest

from eval.statistics import (
    Z95,
    Items,
    bootstrap_interval,
    covariance,
    half_width_by_task,
    mean,
    mean_over_tasks,
    paired_difference,
    share,
    t95,
    wilson,
)


def items(sizes, micro=True, clusters=None):
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    return Items(tasks, np.arange(len(tasks)) if clusters is None else np.asarray(clusters), micro)


def test_wilson_on_worked_numbers():
    low, high = wilson(8, 10)  # z = 1.96: centre (0.8 + 0.19208) / 1.38416, half 0.22658
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 20)[0] == 0 and wilson(20, 20)[1] == 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_mean_gives_every_task_the_same_weight():
    scores = {"small": {"a": 1.0, "b": 0.0}, "large": {str(i): 1.0 for i in range(8)}}
    average, half = mean_over_tasks(scores)
    assert average == 0.75
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


def test_plain_shares_get_the_plain_wilson_interval():
    scores = np.array([1.0] * 8 + [0.0] * 2)
    for one in (share(items([10]), scores), share(items([4, 6], micro=True), scores)):
        assert (one.low, one.high) == pytest.approx(wilson(8, 10)) and one.n == 10
    assert one.standard_error == pytest.approx(sqrt(0.8 * 0.2 / 9))


def test_clusters_are_named_by_items_and_never_by_chance():
    keys = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    made = Items.of(keys, {"1": "2"}, micro=True)  # a cluster called like an item is not that item
    assert made.clusters.tolist() == [0, 1, 0, 2] and made.num_clusters == 3 and not made.independent
    assert Items.of(keys, {}, micro=True).independent


def test_copies_of_an_item_add_no_precision():
    scores = np.array([1.0, 0, 0, 1, 1, 0, 1, 1])
    single = share(items([8]), scores)
    copied = share(items([24], clusters=np.repeat(np.arange(8), 3)), np.repeat(scores, 3))
    assert copied.standard_error == pytest.approx(single.standard_error)
    assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.2)
    assert share(items([24]), np.repeat(scores, 3)).standard_error < 0.6 * copied.standard_error


def test_clustered_variance_on_worked_numbers():
    # clusters {1, 1}, {0, 0}, {1, 0}: mean 1/2, sums of weighted residuals 1/6, -1/6, 0; times 3/2
    one = items([6], clusters=[0, 0, 1, 1, 2, 2])
    assert covariance(one, np.array([[1.0], [1], [0], [0], [1], [0]]))[0, 0] == pytest.approx(1.5 * 2 / 36)


def test_covariance_holds_the_variance_of_differences():
    generator = np.random.default_rng(0)
    scores = generator.random((30, 3))
    for micro in (True, False):
        layout = items([10, 5, 15], micro=micro, clusters=np.arange(30) // 2)
        whole = covariance(layout, scores)
        alone = covariance(layout, (scores[:, 0] - scores[:, 2])[:, None])[0, 0]
        assert whole[0, 0] + whole[2, 2] - 2 * whole[0, 2] == pytest.approx(alone)


def test_tasks_of_one_item_are_taken_together():
    layout = items([1, 1, 1, 6], micro=False)
    scores = np.array([[0.0], [1], [1], [1], [1], [1], [1], [0], [0]])
    # the three lone tasks: residuals -2/3, 1/3, 1/3, each weighing 1/4, times 3/2; the other: 1/16 * (6 * 2/9) / 30
    assert covariance(layout, scores)[0, 0] == pytest.approx(1.5 * (6 / 9) / 16 + (12 / 9) / 30 / 16)
    assert share(items([1, 1, 1], micro=False), np.array([0.0, 1, 1])).standard_error == pytest.approx(1 / 3)
    assert share(items([1, 6], micro=False), np.array([1.0, 1, 0, 1, 0, 1, 0])).standard_error > 0
    assert share(items([1]), np.array([1.0])).standard_error == 0.5, "one item tells nothing of its spread"


def test_an_interval_keeps_its_width_where_all_answers_are_alike():
    none = share(items([20, 20], micro=False), np.zeros(40))
    assert none.low == pytest.approx(0, abs=1e-12)
    assert none.high == pytest.approx(wilson(0, 40, t95(38))[1])
    clustered = share(items([40], clusters=np.arange(40) // 10), np.zeros(40))
    assert clustered.high > 0.6, "four clusters, however large, leave much open"


def test_by_subject_asks_about_other_subjects():
    scores = np.array([1.0] * 10 + [0.0] * 10 + [0.5] * 10)
    layout = items([10, 10, 10])
    # task means 1, 0, 1/2: sd 1/2, over sqrt(3); t with two degrees of freedom is 4.303
    assert half_width_by_task(layout, scores) == pytest.approx(4.3027 * 0.5 / sqrt(3), rel=1e-4)
    assert half_width_by_task(layout, scores) > 3 * (share(layout, scores).high - share(layout, scores).value)
    assert half_width_by_task(items([30]), scores) is None


def test_means_of_any_range_have_normal_intervals():
    one = mean(items([4]), np.array([1.0, 2, 3, 4]))
    assert one.value == 2.5 and one.high - one.value == pytest.approx(3.1824 * sqrt(5 / 3 / 4), rel=1e-4)


SETTINGS = {
    "one task": (items([30]), [0.9]),
    "tasks of unlike difficulty": (items([24] * 5, micro=False), [0.6, 0.02, 0.02, 0.1, 0.3]),
    "tasks of unlike size": (items([10, 100], micro=False), [0.3, 0.6]),
    "micro over tasks": (items([10, 100], micro=True), [0.9, 0.5]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_intervals_cover_the_truth_19_times_in_20(name):
    layout, rates = SETTINGS[name]
    generator = np.random.default_rng(1)
    chances = np.array(rates)[layout.tasks]
    truth = float(layout.weights @ chances)
    drawn = (share(layout, (generator.random(len(chances)) < chances).astype(float)) for _ in range(1000))
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in drawn]) <= 0.99


def test_intervals_cover_the_truth_with_clusters_and_fractions():
    generator = np.random.default_rng(2)
    layout = items([150], clusters=np.arange(150) // 5)
    covered, naive = [], []
    for _ in range(1000):
        luck = np.repeat(generator.beta(2, 2, 30), 5)  # what the five questions on a passage share
        scores = generator.binomial(2, luck) / 2
        one, alone = share(layout, scores), share(items([150]), scores)
        covered.append(one.low <= 0.5 <= one.high)
        naive.append(alone.low <= 0.5 <= alone.high)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(naive) < 0.9, "ignoring the clusters promises too much"


def test_the_hardest_case_is_a_few_clusters_near_the_edge():
    generator = np.random.default_rng(3)
    layout = items([100], clusters=np.arange(100) // 5)
    covered, normal = [], []
    for _ in range(800):
        shared, own = np.repeat(generator.random(20) < 0.9, 5), generator.random(100) < 0.9
        one = share(layout, np.where(generator.random(100) < 0.7, shared, own).astype(float))
        covered.append(one.low <= 0.9 <= one.high)
        normal.append(abs(one.value - 0.9) <= Z95 * one.standard_error)
    assert np.mean(covered) >= 0.88 and np.mean(normal) < np.mean(covered)


def test_bootstrap_interval_of_any_statistic():
    low, high = bootstrap_interval([0.0, 1.0] * 50, lambda drawn: sum(drawn) / len(drawn))
    assert low == pytest.approx(0.4, abs=0.03) and high == pytest.approx(0.6, abs=0.03)
    with pytest.raises(ValueError, match="no units"):
        bootstrap_interval([], len)
    with pytest.raises(ValueError, match="defined on no draw"):
        bootstrap_interval([1], lambda drawn: None)
