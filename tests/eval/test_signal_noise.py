"""Signal, noise and decision accuracy against numbers worked out by hand; reports on made-up scores."""

from math import log, sqrt

import numpy as np
import pytest
from scipy.stats import qmc

from data_recipes.errors import UserError
from eval.interventions import average_report, compare_report, subset_report
from eval.score_table import ScoreTable, from_lists, from_results
from eval.signal_noise import (
    SIGNALS,
    averaged_runs,
    decision_accuracy,
    levels,
    log_correlation,
    pairs_apart,
    pooled_cap,
    pooled_noise,
    signal_noise,
    trend,
    within_run_noise,
)
from eval.snr_report import Choice, markdown, snr_report, write_report

RUNS = {"a": [0.9, 0.1, 0.2, 0.4], "b": [0.5, 0.5], "c": [0.7]}


def test_noise_is_the_relative_spread_within_a_run():
    # of a's last two: sd 0.1, mean 0.3; b does not move; c has one checkpoint and tells nothing
    assert within_run_noise(RUNS, last=2) == pytest.approx((0.1 / 0.3 + 0) / 2)
    assert within_run_noise({"a": RUNS["a"]}, last=2, ddof=1) == pytest.approx(0.1 * sqrt(2) / 0.3)
    assert within_run_noise({"c": [0.7]}) is None
    assert within_run_noise({"z": [-1.0, 1.0]}) is None, "relative to a mean of 0 nothing can be said"


def test_signal_and_ratio_on_worked_numbers():
    runs = {"a": [0.2, 0.4], "b": [0.5, 0.7], "c": [0.9, 0.9]}
    made = signal_noise(runs, last=2)
    assert made.signal == pytest.approx((0.9 - 0.3) / 0.6)  # levels 0.3, 0.6, 0.9
    assert made.noise == pytest.approx((0.1 / 0.3 + 0.1 / 0.6 + 0) / 3)
    assert made.snr == pytest.approx(1.0 / (1 / 6))
    assert (made.models, made.noise_runs, made.checkpoints) == (3, 3, 2)
    last_only = signal_noise(runs, last=2, averaged=1, noise_runs={"a": [0.2, 0.4]})
    assert last_only.signal == pytest.approx((0.9 - 0.4) / np.mean([0.4, 0.7, 0.9]))
    assert last_only.noise == pytest.approx(0.1 / 0.3)
    pooled = signal_noise(runs, last=2, pooled=True)
    assert pooled.noise == pytest.approx(np.std([0.2, 0.4, 0.5, 0.7, 0.9, 0.9]) / 0.6) == pooled_noise(runs, last=2)


def test_a_benchmark_that_does_not_move_has_no_ratio():
    made = signal_noise({"a": [0.5, 0.5], "b": [0.7, 0.7]})
    assert made.noise == 0 and made.snr is None and made.signal == pytest.approx(0.2 / 0.6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # scores 0.2, 0.4, 0.4, 1.0: mean 0.5, pairwise 0.2, 0.2, 0.8, 0, 0.6, 0.6
        ("dispersion", 0.8 / 0.5),
        ("sd", 0.3 / 0.5),
        ("pairwise", 0.4 / 0.5),
        ("squared_pairwise", (0.04 + 0.04 + 0.64 + 0.36 + 0.36) / 6 / 0.25),
        ("distance_sd", sqrt(1.44 / 6 - 0.16) / 0.5),
        ("median_deviation", 0.1 / 0.5),  # from 0.4: 0.2, 0, 0, 0.6
        ("mean_deviation", (0.3 + 0.1 + 0.1 + 0.5) / 4 / 0.5),
        ("iqr", (0.55 - 0.35) / 0.5),
        ("quartile_deviation", 0.1 / 0.5),
        ("robust_range", ((0.4 + 0.85 * 0.6) - (0.2 + 0.15 * 0.2)) / 0.5),
        ("gini", 2 * 2.4 / 16 / 2 / 0.5),
        ("entropy", 0.0),  # two models tie: no width
        ("star_discrepancy", 0.35),  # three of four scores lie at or below 0.4
    ],
)
def test_every_signal_on_worked_numbers(name, expected):
    assert SIGNALS[name](np.array([0.4, 1.0, 0.2, 0.4])) == pytest.approx(expected)


def test_the_two_signals_with_a_formula_of_their_own_agree_with_the_library_and_the_law():
    scores = np.random.default_rng(1).random(11)
    assert SIGNALS["discrepancy"](scores) == pytest.approx(qmc.discrepancy(scores[:, None], method="CD"))
    # two scores: exp(1 + log 2 + log |a - b|) over their mean
    assert SIGNALS["entropy"](np.array([0.25, 0.75])) == pytest.approx(np.exp(1 + log(2) + log(0.5)) / 0.5)
    assert SIGNALS["entropy"](scores) == SIGNALS["entropy"](scores), "nothing random"


@pytest.mark.parametrize("name", [name for name in SIGNALS if not name.endswith("discrepancy")])
def test_relative_signals_do_not_know_the_unit_and_grow_with_the_spread(name):
    scores = np.array([0.31, 0.42, 0.44, 0.58, 0.63])
    assert SIGNALS[name](100 * scores) == pytest.approx(SIGNALS[name](scores))
    assert SIGNALS[name](0.476 + 1.2 * (scores - 0.476)) > SIGNALS[name](scores)
    assert SIGNALS[name](-scores) == pytest.approx(SIGNALS[name](scores)), "log-probabilities are below 0"


def test_a_discrepancy_wants_scores_between_0_and_1():
    assert signal_noise({"a": [30.0, 31], "b": [50.0, 52]}, signal="discrepancy").signal is None


@pytest.mark.parametrize(
    ("ratio", "pooled", "within"), [(0.5, 2.38, 3.16), (2, 3.68, 9.73), (10, 4.04, 47.8), (100, 4.02, 468)]
)
def test_the_pooled_ratio_is_capped_and_the_one_within_runs_is_not(ratio, pooled, within):
    # 25 recipes x 5 checkpoints; the recipes spread `ratio` times as far as the checkpoints of one
    generator = np.random.default_rng(7)
    ratios = []
    for _ in range(60):
        scores = 1e4 + ratio * generator.normal(size=(25, 1)) + generator.normal(size=(25, 5))
        runs = {str(i): one for i, one in enumerate(scores)}
        ratios.append([signal_noise(runs, last=5, pooled=p).snr for p in (True, False)])
    made = np.mean(ratios, axis=0)
    assert made[0] == pytest.approx(pooled, rel=0.05) and made[0] < 4.3
    assert made[1] == pytest.approx(within, rel=0.1)


def test_the_cap_is_the_expected_range_of_normal_draws():
    assert pooled_cap(2) == pytest.approx(2 / sqrt(np.pi), abs=1e-3)
    assert pooled_cap(25) == pytest.approx(3.931, abs=1e-3)  # d2 of the control-chart tables


def test_decision_accuracy_and_its_ties():
    final = {"a": 0.1, "b": 0.2, "c": 0.3}
    assert decision_accuracy({"a": 1, "b": 2, "c": 3}, final) == 1
    assert decision_accuracy({"a": 3, "b": 2, "c": 1}, final) == 0
    assert decision_accuracy({"a": 1, "b": 1, "c": 3}, final) == pytest.approx(2.5 / 3)
    assert decision_accuracy(final, {"a": 1, "b": 1, "c": 1}) == 0.5, "a tie in the end is a coin's toss, too"
    assert decision_accuracy({"a": 1}, final) is None


def test_the_published_tie_rule_depends_on_the_names():
    final = {"a": 0.1, "b": 0.2, "c": 0.3}
    assert decision_accuracy({"a": 1, "b": 1, "c": 3}, final, compat=True) == 1  # "a > b" is false of both
    assert decision_accuracy({"z": 1, "b": 1, "c": 3}, {"z": 0.1, "b": 0.2, "c": 0.3}, compat=True) == pytest.approx(
        2 / 3
    )


def test_pairs_are_apart_when_two_checkpoints_would_not_differ_so_much():
    # sd (n - 1) of every run: 0.01 * sqrt(2); bar: 1.96 * sqrt(2) * 0.01414 = 0.0392
    runs = {"a": [0.49, 0.51], "b": [0.52, 0.54], "c": [0.59, 0.61]}
    assert pairs_apart(levels(runs, 2), runs) == pytest.approx(2 / 3)
    assert pairs_apart(levels(runs, 2), {"c": [0.6]}) is None


def test_trend_tells_learning_from_noise():
    generator = np.random.default_rng(3)
    noise = {str(i): generator.normal(size=10) for i in range(200)}
    assert trend(noise) == pytest.approx(0, abs=0.05)
    assert trend({m: 3 * np.arange(10) + s for m, s in noise.items()}) > 0.95
    assert trend({"a": [1.0, 1, 1, 1, 1], "b": [1.0, 2]}) is None


def test_averaging_takes_windows_of_a_run():
    assert averaged_runs({"a": [1.0, 2, 3, 6], "b": [1.0]}, 3) == {"a": pytest.approx([2.0, 11 / 3])}


def test_log_correlation():
    assert log_correlation([1, 10, 100], [0.5, 0.7, 0.9]) == pytest.approx(1)
    assert log_correlation([1, 10], [0.5, 0.7]) is None and log_correlation([1, 2, 3], [0.5] * 3) is None


def made_up(levels, noise, checkpoints=12, seed=5) -> dict[str, list[float]]:
    generator = np.random.default_rng(seed)
    return {f"m{i}": (level + noise * generator.normal(size=checkpoints)).tolist() for i, level in enumerate(levels)}


SPREAD = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@pytest.fixture
def table() -> ScoreTable:
    return from_lists(
        {"clear": made_up(SPREAD, 0.005), "muddy": made_up(SPREAD, 0.4, seed=8), "flat": made_up([0.5] * 6, 0.01)}
    )


def choice_of(table, **settings) -> Choice:
    given = {"metric": table.metric(None), "tasks": table.tasks, "models": table.models, "last": 6}
    return Choice(**{**given, **settings})


def test_the_report_says_which_tasks_tell_the_models_apart(table, tmp_path):
    report = snr_report(table, choice_of(table))
    assert report.rows[0]["task"] == "clear" and report.rows[0]["decision_accuracy"] == 1
    assert report.findings[0].startswith("clear can tell these models apart")
    assert any(
        finding.startswith(("muddy and flat", "flat and muddy")) and "cannot" in finding for finding in report.findings
    )
    assert "divided by n) over mean of the last 6 checkpoints" in report.findings[-1]
    write_report(report, tmp_path / "out", {"last": 6})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["snr.csv", "snr.json", "snr.md"]
    assert (tmp_path / "out" / "snr.csv").read_text().startswith("task,models,checkpoints,signal,noise,snr,")
    assert "| clear | 6 | 6 |" in markdown(report)


def test_by_default_noise_leaves_out_the_first_half_of_a_run():
    rising = {f"m{i}": [0.0, 0.1, 0.2, level, level + 0.01, level, level + 0.01] for i, level in enumerate((0.4, 0.6))}
    table = from_lists({"t": rising})
    assert snr_report(table, choice_of(table, last=None)).rows[0]["checkpoints"] == 4
    learning = snr_report(table, choice_of(table, last=7))
    assert learning.rows[0]["noise"] > 0.5 and any("still follow a line" in finding for finding in learning.findings)


def test_a_models_score_can_be_the_mean_over_more_checkpoints_than_noise_is_taken_from():
    table = from_lists({"t": {"a": [0.2, 0.3, 0.4, 0.4, 0.4, 0.41], "b": [0.8, 0.7, 0.6, 0.6, 0.6, 0.61]}})
    row = snr_report(table, choice_of(table, last=2, averaged=6)).rows[0]
    means = [2.11 / 6, 3.91 / 6]
    assert row["signal"] == pytest.approx((means[1] - means[0]) / (sum(means) / 2)) and row["checkpoints"] == 2
    assert row["noise"] == pytest.approx((0.005 / 0.405 + 0.005 / 0.605) / 2)


def test_compat_shows_the_pooled_ratio_and_why_it_is_not_the_default(table):
    report = snr_report(table, choice_of(table, compat=True))
    clear = next(row for row in report.rows if row["task"] == "clear")
    assert clear["snr"] > 50 > 4 > clear["pooled_snr"]
    assert any("why it is not the default" in finding and "not greater" not in finding for finding in report.findings)
    assert any("ties count as 'not greater'" in finding for finding in report.findings)


def test_small_models_are_paired_with_large_ones_by_recipe():
    table = from_lists({"t": {"s1": [0.1, 0.2], "s2": [0.3, 0.3], "l1": [0.5], "l2": [0.6], "l3": [0.1]}})
    for model, size, recipe in (
        ("s1", "1M", "x"),
        ("s2", "1M", "y"),
        ("l1", "1B", "x"),
        ("l2", "1B", "y"),
        ("l3", "1B", "z"),
    ):
        table.facts[model] = {"size": size, "recipe": recipe}
    row = snr_report(table, choice_of(table, small="1M", target="1B")).rows[0]
    assert (row["models"], row["ranked"], row["decision_accuracy"]) == (2, 2, 1.0)
    with pytest.raises(UserError, match="no model has the size '2B' of --target"):
        snr_report(table, choice_of(table, small="1M", target="2B"))
    with pytest.raises(UserError, match="go together"):
        snr_report(table, choice_of(table, small="1M"))


def test_comparing_metrics_turns_losses_round():
    scores = made_up(SPREAD, 0.05)
    table = from_lists({"t": scores}, metric="accuracy")
    for model, values in made_up([2 - 2 * level for level in SPREAD], 0.002).items():
        for step, value in enumerate(values, start=1):
            table.add(model, step, "t", "bits_per_byte", value, "here")
    report = compare_report(table, choice_of(table), ["accuracy", "bits_per_byte"])
    accuracy, loss = report.rows
    assert loss["snr"] > 5 * accuracy["snr"] and loss["decision_accuracy"] >= accuracy["decision_accuracy"] > 0.7
    assert report.findings[0] == "bits_per_byte has the higher SNR on 1 of 1 tasks: t."


def test_averaging_lowers_the_noise_and_the_report_counts_the_tasks(table):
    report = average_report(table, choice_of(table, last=12), [1, 4])
    muddy = next(row for row in report.rows if row["task"] == "muddy")
    assert muddy["noise_4"] < 0.75 * muddy["noise_1"]
    assert report.findings[0].startswith("Averaging the last 4 checkpoints at 50 % of each run ranks the models better")
    with pytest.raises(UserError, match="no run has 40 checkpoints"):
        average_report(table, choice_of(table), [1, 40])


def test_the_best_set_of_subtasks_leaves_the_muddy_ones_out():
    names = {f"m{i}": None for i in range(10)}
    levels = [0.3 + 0.05 * i for i in range(len(names))]
    tasks = {f"clear{k}": made_up(levels, 0.01, seed=k) for k in range(3)}
    tasks |= {f"muddy{k}": made_up([0.5] * 10, 0.2, seed=9 + k) for k in range(4)}
    table = from_lists(tasks)
    report = subset_report(table, choice_of(table))
    order = [row["task"] for row in report.rows]
    assert (
        sorted(order[:3]) == ["clear0", "clear1", "clear2"]
        and report.rows[2]["set_snr"] > 3 * report.rows[-1]["set_snr"]
    )
    assert report.findings[0].startswith("Best set: the first ") and "muddy" not in report.findings[1]
    assert report.findings[2].startswith("Chosen on every other model and judged on the rest")


def test_results_of_a_run_become_checkpoints_of_runs():
    def result(name, score, **settings):
        scores = {"x/a": {"1": score, "2": 1.0}, "x/b": {"3": 0.0}}
        benchmark = {"scores": scores, "bits_per_byte": {"x/a": {"1": 0.5, "2": 1.5}}}
        return {"name": name, "settings": settings, "benchmarks": {"x": benchmark}}

    saved = [result("SFT@step-200", 1.0), result("SFT@step-100", 0.0), result("most frequent", 1.0, constant=True)]
    table = from_results([*saved, result("zero", 0.0)])
    assert table.runs("x/a", "accuracy")["SFT"].steps == (100, 200) and "most frequent" not in table.models
    assert table.runs("x/a", "accuracy")["SFT"].scores == (0.5, 1.0)
    assert table.runs("x", "accuracy")["SFT"].scores == (0.25, 0.5), "the benchmark: the mean over its tasks"
    assert table.runs("x/a", "bits_per_byte")["zero"].scores == (1.0,)
    saved[0]["benchmarks"]["x"]["headline"] = "micro"
    assert from_results(saved).runs("x", "accuracy")["SFT"].scores == (0.25, 2 / 3), "or over its items"


def test_two_settings_of_one_benchmark_stay_apart():
    scores = {"scores": {"x/a": {"1": 1.0}, "x/b": {"2": 0.0}}}
    table = from_results([{"name": "m", "settings": {}, "benchmarks": {"x": scores, "x direct": scores}}])
    assert table.tasks == ["x", "x/a", "x/b", "x direct", "x direct: x/a", "x direct: x/b"]


@pytest.mark.parametrize(
    "result",
    [
        {"settings": {}, "benchmarks": {}},
        {"name": "m", "settings": {}},
        {"name": "m", "settings": ["late"], "benchmarks": {}},
        {"name": "m", "settings": {}, "benchmarks": ["x"]},
        {"name": "m", "settings": {}, "benchmarks": {"x": {"scores": {"x/a": {"1": "good"}}}}},
        {"name": "m", "settings": {}, "benchmarks": {"x": {"scores": {"x/a": {"1": float("nan")}}}}},
    ],
)
def test_results_of_another_shape_are_refused(result):
    with pytest.raises(UserError, match="not the results of an evaluation .*; evaluate that model again"):
        from_results([result])
