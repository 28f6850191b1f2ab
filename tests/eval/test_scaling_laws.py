"""Ladder fits on curves whose law is known, the check that a fit arrived, and the ladder folder's reader."""

import csv
import json

import numpy as np
import pytest

from data_recipes.errors import UserError
from eval.scaling_laws import (
    Fit,
    LadderResult,
    fit_power_law,
    fit_sigmoid,
    moving_average,
    power_law,
    predict_task,
    refit_from_data,
    sigmoid,
)
from eval.score_table import ScoreTable, read_ladder
from eval.snr_report import ladder_report

LAW = (4.0, 5.0, 0.25, 0.26, 0.5)
CURVE = (-0.7, 0.75, 6.0, 1.0)
SIZES = (2e8, 4e8, 8e8, 1.3e9)


def grid() -> tuple[np.ndarray, np.ndarray]:
    """Return 16 sizes: four models, each trained on 20 to 200 tokens a parameter."""
    params = np.repeat(SIZES, 4)
    return params, params * np.tile([20, 40, 100, 200], 4)


def wobble(sd: float) -> np.ndarray:
    """Return 16 factors near 1: without any error, the optimiser polishes an exact solution for long."""
    return 1 + sd * np.random.default_rng(2).normal(size=16)


def test_the_law_on_worked_numbers():
    assert power_law((np.log(10), np.log(100), 0.5, 1.0, 2.0), 100, 50) == pytest.approx(2 + 10 / 10 + 100 / 50)
    assert power_law((np.log(10), np.log(100), 0.5, 1.0, 5.0), 100, 50, rising=True) == pytest.approx(5 - 1 - 2)
    assert sigmoid((-0.6, 0.8, 3.0, 1.0), 0.8) == pytest.approx(1 - 0.3)


def test_moving_average_begins_with_what_there_is():
    assert moving_average([1.0, 3.0, 5.0, 9.0], 3).tolist() == pytest.approx([1, 2, 3, 17 / 3])


def test_a_known_power_law_is_found_again_and_foretells_a_larger_model():
    params, tokens = grid()
    fit = fit_power_law(params, tokens, power_law(LAW, params, tokens) * wobble(2e-4))
    assert fit.fault == "" and fit.iterations > 10
    assert power_law(fit.coefficients, 1.3e10, 5e12) == pytest.approx(power_law(LAW, 1.3e10, 5e12), rel=5e-3)


def test_one_outlier_does_not_pull_the_fit():
    params, tokens = grid()
    values = power_law(LAW, params, tokens)
    values[5] *= 1.2
    fit = fit_power_law(params, tokens, values)
    others = np.delete(np.arange(16), 5)
    assert np.allclose(power_law(fit.coefficients, params, tokens)[others], values[others], rtol=2e-3)


def test_a_known_sigmoid_is_found_again():
    losses = np.linspace(0.5, 1.3, 60)
    fit = fit_sigmoid(losses, sigmoid(CURVE, losses))
    assert fit.fault == "" and sigmoid(fit.coefficients, 0.45) == pytest.approx(sigmoid(CURVE, 0.45), abs=5e-3)


def test_a_fit_that_never_leaves_its_start_is_flagged_and_mended():
    params, tokens = grid()
    values = power_law((2.0, 1.5, 0.15, 0.2, 0.7), params, tokens, rising=True) * wobble(2e-3)
    stuck = fit_power_law(params, tokens, values, rising=True)
    assert stuck.fault == "never left its start" and stuck.iterations <= 1
    mended = refit_from_data(params, tokens, values, rising=True)
    assert mended.fault == "" and mended.loss < stuck.loss / 100
    assert power_law(mended.coefficients, params, tokens, rising=True) == pytest.approx(values, rel=1e-2)


@pytest.mark.parametrize(
    ("iterations", "slope", "loss", "fault"),
    [
        (1, 0.9, 0.1, "never left its start"),
        (0, 1.0, 0.1, "never left its start"),
        (200, 0.3, 0.1, "stopped where its loss still falls"),
        (200, 1e-6, 0.1, ""),
        (1, 1e-6, 0.0, ""),  # the start was the solution
        (30, float("nan"), float("nan"), "its loss is no number"),
    ],
)
def test_what_is_wrong_with_a_fit(iterations, slope, loss, fault):
    assert Fit((1.0,), loss, iterations, slope).fault == fault


def made_up() -> ScoreTable:
    """Return a ladder of 16 runs with 20 checkpoints each, a large target on the same laws, and one a tenth better."""
    table = ScoreTable("here")
    params, tokens = grid()
    runs = [(f"{n:.0e}-{d / n:.0f}", n, d, error) for n, d, error in zip(params, tokens, wobble(2e-4), strict=True)]
    for model, n, d, error in [*runs, ("big", 1.3e10, 5e12, 1), ("odd", 1.3e10, 5e12, 1)]:
        table.facts[model] = {"params": n}
        for step in range(1, 21):
            # the last checkpoints are equal, as at the end of a schedule, so that their mean is the law's value
            loss = float(power_law(LAW, n, d * min(1.0, step / 15)) * error)
            table.tokens[model, step] = d * step / 20
            table.add(model, step, "t", "bits_per_byte", loss, "here")
            accuracy = float(sigmoid(CURVE, loss)) * (1.1 if model == "odd" else 1)
            table.add(model, step, "t", "accuracy", accuracy, "here")
    return table


@pytest.fixture(scope="module")
def results() -> list[LadderResult]:
    return predict_task(made_up(), "t", ["big", "odd"])


def test_both_steps_foretell_the_target_of_a_known_ladder(results):
    made, odd = results
    assert made.loss.predicted == pytest.approx(made.loss.actual, rel=5e-3)
    assert made.accuracy.predicted == pytest.approx(made.accuracy.actual, rel=5e-3)
    assert made.chained.predicted == pytest.approx(made.chained.actual, rel=5e-3)
    assert made.loss.fit_error < 1e-3 and made.loss.fault == made.chained.fault == ""
    assert odd.chained.error == pytest.approx(1 / 1.1 - 1, abs=5e-3), "a target is never fitted to"


def test_the_report_names_the_faulty_fits(results):
    report = ladder_report(results)
    assert report.findings[0].startswith("big: the chained prediction is off by 0.")
    assert "The direct fit of t never left its start: what it predicts is no prediction." in report.findings
    assert report.rows[0]["refit_fault"] == "" and report.rows[0]["refit_fit_error"] < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.facts.__setitem__("big", {}), "the params of big are missing; add"),
        (lambda t: t.tokens.pop(("big", 3)), "the tokens of big at step 3 are missing; add"),
        (lambda t: t.scores["t", "accuracy"].pop("big"), "big has no accuracy on t; add it"),
        (lambda t: [t.scores["t", "accuracy"].pop(m) for m in t.models[:12]], "has no accuracy on t; add it"),
        (lambda t: t.scores["t", "accuracy"].__setitem__("big", {99: 0.5}), "no step with both .*; add one"),
        (lambda t: t.scores["t", "accuracy"]["big"].update(dict.fromkeys(range(21), 0.0)), "big ends at 0 or below"),
    ],
)
def test_a_ladder_with_gaps_is_refused_in_one_sentence(change, message):
    table = made_up()
    change(table)
    with pytest.raises(UserError, match=message):
        predict_task(table, "t", ["big"])


def test_too_few_models_or_the_wrong_metric_are_refused():
    table = made_up()
    with pytest.raises(UserError, match="4 models to fit t to; add some"):
        predict_task(table, "t", ["big"], train=table.models[:4])
    with pytest.raises(UserError, match="'bits_per_byte' is no accuracy"):
        predict_task(table, "t", ["big"], accuracy_metric="bits_per_byte", loss_metric="accuracy")


PARTS = ("stem", "humanities", "social_sciences", "other")


def ladder_folder(folder, **changed) -> None:
    """Write two runs and a configuration in OLMo-ladder's layout."""
    runs = folder / "runs"
    runs.mkdir()
    for name, total in (("1M-1xC", True), ("big_final", False)):
        rows = []
        for step in (10, 20):
            row = {"_step": step, "batch_size_in_tokens": 100.0}
            row |= {"throughput/total_tokens": step * 100.0 + 1} if total else {}
            row |= {f"eval/downstream/mmlu_{p}_test_rc_5shot_len_norm": 0.1 * (i + 1) for i, p in enumerate(PARTS)}
            row |= {"eval/downstream_bpb/boolq_val_rc_5shot_bpb": 1.5, "eval/downstream/boolq_val_rc_5shot_acc": 0.6}
            rows.append(row | {"eval/downstream/boolq_val_mc_5shot_acc": 0.7, "eval/c4/CrossEntropyLoss": 3.0})
        with open(runs / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)
    config = {
        "1M": {"paths": ["any/where/1M-1xC.csv"], "mode": "train", "n": 1e6, "label": "1M"},
        "big": {"paths": ["any/where/big_final.csv"], "mode": "eval", "n": 1e9},
    }
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


def test_a_ladder_folder_becomes_a_table(tmp_path):
    ladder_folder(tmp_path)
    table, targets = read_ladder(tmp_path / "runs", tmp_path / "config.json")
    assert targets == ["big"] and table.models == ["1M-1xC", "big"]
    assert table.tokens == {("1M-1xC", 10): 1001, ("1M-1xC", 20): 2001, ("big", 10): 1000, ("big", 20): 2000}
    assert table.facts["big"] == {"params": 1e9}
    assert table.runs("boolq_val", "bits_per_byte")["big"].scores == (1.5, 1.5)
    assert table.runs("boolq_val", "mc_accuracy")["big"].scores == (0.7, 0.7)
    mean = 0.215 * 0.1 + 0.335 * 0.2 + 0.219 * 0.3 + 0.231 * 0.4
    assert table.runs("mmlu_avg_test", "accuracy")["big"].scores == pytest.approx((mean, mean))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"big": {"paths": ["big_fina.csv"], "mode": "eval", "n": 1}}, "names big_fina.csv, .*mean 'big_final.csv'"),
        ({"big": {"paths": [], "mode": "test", "n": 1}}, "big needs paths, n and a mode of 'train' or 'eval'"),
        ({"big": {"mode": "eval", "n": 1}}, "big needs paths"),
        ({"big": 3}, "big needs paths"),
        ({"again": {"paths": ["1M-1xC.csv"], "mode": "train", "n": 1e6}}, "a second score of 1M-1xC at step 10"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, changed, message):
    ladder_folder(tmp_path, **changed)
    with pytest.raises(UserError, match=message):
        read_ladder(tmp_path / "runs", tmp_path / "config.json")


def test_a_run_without_a_needed_column_is_refused(tmp_path):
    ladder_folder(tmp_path)
    path = tmp_path / "runs" / "1M-1xC.csv"
    path.write_text(path.read_text().replace("batch_size_in_tokens", "batch_size"))
    with pytest.raises(UserError, match="line 2: the column 'batch_size_in_tokens' is missing .*'batch_size'"):
        read_ladder(tmp_path / "runs", tmp_path / "config.json")
