"""Published tables of OLMo-ladder computed again, and what Pythia's checkpoints show of signal, noise and averaging."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from eval.interventions import average_report, compare_report, subset_report
from eval.scaling_laws import LadderResult, predict_task
from eval.score_table import ScoreTable, add_ladder_run, read_ladder, read_scores
from eval.signal_noise import levels, within_run_noise
from eval.snr_report import Choice, ladder_report, snr_report

pytestmark = pytest.mark.data

NAMES = {
    "Winogrande": "winogrande_val",
    "BoolQ": "boolq_val",
    "CommonsenseQA": "csqa_val",
    "OpenBookQA": "openbookqa_test",
    "ARC-Easy": "arc_easy_test",
    "ARC-Challenge": "arc_challenge_test",
    "MMLU": "mmlu_avg_test",
    "Social IQa": "socialiqa_val",
    "PIQA": "piqa_val",
    "HellaSwag": "hellaswag_val",
}
"""of the noise table"""
STUCK = {"mmlu_avg_test", "hellaswag_val", "arc_challenge_test", "openbookqa_test", "csqa_val"}
EIGHT = ["arc_challenge", "arc_easy", "lambada_openai", "logiqa", "piqa", "sciq", "winogrande", "wsc"]


def place(*parts: str) -> Path:
    return Path(os.environ["WHETSTONE_DATA"]).joinpath(*parts)


def published(name: str) -> dict[str, dict[str, str]]:
    with open(place("olmo_ladder", "published_tables", f"{name}.csv"), newline="") as file:
        return {row["Task"].removesuffix("_5shot"): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def ladder() -> tuple[ScoreTable, list[str]]:
    return read_ladder(place("olmo_ladder", "ladder-runs"), place("olmo_ladder", "configs", "final.json"))


@pytest.fixture(scope="module")
def predictions(ladder) -> dict[str, LadderResult]:
    table, targets = ladder
    assert targets == ["7B-4T", "13B-5T"]
    train = [model for model in table.models if model not in targets]
    assert len(train) == 16
    return {task: predict_task(table, task, ["13B-5T"], train=train)[0] for task in published("step1_main")}


@pytest.fixture(scope="module")
def pythia() -> ScoreTable:
    return read_scores([place("pythia_evals", "pythia_v1_zeroshot_wide.csv")])


def of_pythia(table: ScoreTable, **settings) -> Choice:
    given = {"metric": "acc", "tasks": EIGHT, "models": table.models, "last": 5, "early": 63000}
    return Choice(**{**given, **settings})


def test_the_noise_table_is_reproduced_40_numbers_of_40():
    table = ScoreTable("1B-10xC")
    add_ladder_run(table, "1B-10xC", 1279395840, place("olmo_ladder", "ladder-runs", "1B-10xC.csv"))
    checked = 0
    for name, row in published("variance").items():
        for metric, column in (("bits_per_byte", "Loss"), ("accuracy", "Accuracy")):
            scores = np.array(table.runs(NAMES[name], metric)["1B-10xC"].scores)
            relative = within_run_noise({"1B-10xC": scores}, last=10)
            assert relative == pytest.approx(float(row[f"{column} Rel SD (CV)"]), rel=1e-11)
            assert relative * levels({"": scores}, 10)[""] == pytest.approx(float(row[f"{column} SD"]), rel=1e-11)
            # the reference takes averages over one checkpoint as differences of running sums, and then rounds as it did
            summed = np.diff(np.cumsum(scores), prepend=0)[-10:]
            assert (np.std(summed), np.std(summed) / np.mean(summed)) == (
                float(row[f"{column} SD"]),
                float(row[f"{column} Rel SD (CV)"]),
            )
            checked += 2
    assert checked == 40


@pytest.mark.parametrize(
    ("name", "of"),
    [("step1_main", "loss"), ("step2_main", "accuracy"), ("chained_main", "chained")],
)
def test_the_published_13b_predictions_come_out_again(predictions, name, of):
    rows = published(name)
    assert len(rows) == 8
    for task, row in rows.items():
        made = getattr(predictions[task], of)
        assert made.actual == pytest.approx(float(row["Actual"]), rel=1e-12)
        assert made.predicted == pytest.approx(float(row["Pred"]), rel=1e-5), task
        assert made.fault == ""
        if "Fit Error" in row:
            assert made.fit_error == pytest.approx(float(row["Fit Error"]), rel=1e-5)


def test_the_mean_error_of_the_chained_predictions(predictions):
    assert np.mean([abs(made.chained.error) for made in predictions.values()]) == pytest.approx(0.0604, abs=5e-5)


def test_the_direct_fits_that_never_left_their_start_are_flagged(predictions):
    rows = published("step1_acc_main")
    for task, made in predictions.items():
        assert (made.direct.fault == "never left its start") == (task in STUCK), task
        # Social IQa's fit wanders along a valley without a floor, where rounding decides how far it gets
        exactly = 1e-2 if task == "socialiqa_val" else 1e-6
        assert made.direct.predicted == pytest.approx(float(rows[task]["Pred"]), rel=exactly), task
    same = [task for task in rows if float(rows[task]["Pred"]) == pytest.approx(0.6842, abs=1e-4)]
    assert sorted(same) == sorted(STUCK - {"csqa_val"}), "csqa's published fit stopped after one step as well"


def test_other_starts_take_the_stuck_fits_to_the_data(predictions):
    for task in STUCK:
        made = predictions[task]
        assert made.refit is not None and made.refit.fault == ""
        assert made.refit.fit_error < 0.04 < made.direct.fit_error
    report = ladder_report(list(predictions.values()))
    assert any("never left its start: what it predicts is no prediction" in finding for finding in report.findings)


def test_bits_per_byte_beats_accuracy_on_7_of_10_tasks(ladder):
    # range over the last checkpoints of the 16 ladder runs, against the noise of 1B-10xC's last 10
    table, targets = ladder
    models = [model for model in table.models if model not in targets]
    choice = Choice("accuracy", list(NAMES.values()), models, last=10, averaged=1, noise_from=("1B-10xC",))
    report = compare_report(table, choice, ["accuracy", "bits_per_byte"])
    ratios = {(row["task"], row["metric"]): row["snr"] for row in report.rows}
    for task, accuracy, bits in (
        ("openbookqa_test", 17.3, 78.1),
        ("socialiqa_val", 38.5, 116.5),
        ("boolq_val", 9.7, 26.0),
    ):
        assert ratios[task, "accuracy"] == pytest.approx(accuracy, abs=0.05)
        assert ratios[task, "bits_per_byte"] == pytest.approx(bits, abs=0.05)
    worse = {task for task in NAMES.values() if ratios[task, "bits_per_byte"] < ratios[task, "accuracy"]}
    assert worse == {"hellaswag_val", "csqa_val", "winogrande_val"}
    assert report.findings[0].startswith("bits_per_byte has the higher SNR on 7 of 10 tasks")


@pytest.mark.parametrize("compat", [False, True])
def test_snr_within_runs_ranks_pythias_tasks_by_decision_accuracy_and_the_pooled_ratio_does_not(pythia, compat):
    # 16 models, their last 5 checkpoints (103k to 143k); ranking at step 63k against 143k; both tie rules
    assert len(pythia.models) == 16
    report = snr_report(pythia, of_pythia(pythia, compat=compat))
    rows = {row["task"]: row for row in report.rows}
    assert rows["logiqa"]["snr"] == pytest.approx(7.6, abs=0.05)
    assert rows["arc_easy"]["snr"] == pytest.approx(61.4, abs=0.05)
    assert min(r["snr"] for r in report.rows) == rows["logiqa"]["snr"]
    assert "Over 8 tasks, log SNR and decision accuracy correlate with r = 0.97." in report.findings
    assert report.findings[0].startswith("arc_easy, piqa, lambada_openai and arc_challenge can tell these models apart")
    if compat:
        pooled = [row["pooled_snr"] for row in report.rows]
        assert (min(pooled), max(pooled)) == (pytest.approx(2.95, abs=0.005), pytest.approx(4.19, abs=0.005))
        assert "Over 8 tasks, log pooled SNR and decision accuracy correlate with r = -0.66." in report.findings
        assert any("ties count as 'not greater'" in finding for finding in report.findings)
    else:
        assert any("16 models, ties count half" in finding for finding in report.findings)


def test_averaging_four_checkpoints_beats_the_single_one_on_7_of_8_tasks(pythia):
    # the mean over 33k, 43k, 53k and 63k against 63k alone; both against the ranking at 143k
    report = average_report(pythia, of_pythia(pythia), [1, 4])
    better = {row["task"] for row in report.rows if row["decision_accuracy_4"] > row["decision_accuracy_1"]}
    assert better == set(EIGHT) - {"sciq"}
    assert "on 7 of 8 tasks, worse on sciq" in report.findings[0]
    by_default = average_report(pythia, of_pythia(pythia, early=0.5, last=None), [1, 4])
    assert all(row["noise_4"] < 0.7 * row["noise_1"] for row in by_default.rows)
    assert "on 7 of 8 tasks" in by_default.findings[0], "half of 143k: the checkpoint at 63k"


def test_a_few_subjects_of_mmlu_tell_pythias_models_apart_better_than_all(pythia):
    subjects = [task for task in pythia.tasks if task.startswith("hendrycksTest-")]
    assert len(subjects) == 57
    report = subset_report(pythia, of_pythia(pythia, tasks=subjects))
    best, whole = max(report.rows, key=lambda row: row["set_snr"]), report.rows[-1]
    assert best["rank"] < 30 and best["set_snr"] > 1.5 * whole["set_snr"]
    assert best["set_decision_accuracy"] > whole["set_decision_accuracy"]
    assert report.findings[2].startswith("Chosen on every other model and judged on the rest: SNR ")


def test_by_default_the_first_half_of_a_run_is_no_noise(pythia):
    report = snr_report(pythia, of_pythia(pythia, last=None, early=0.5))
    assert {row["checkpoints"] for row in report.rows} == {8}, "73k to 143k of 27 checkpoints from step 0"
    whole = snr_report(pythia, of_pythia(pythia, last=30))
    assert all(row["snr"] < 3 for row in whole.rows)
    assert any("still follow a line" in finding for finding in whole.findings)
