"""Critique units by hand: their places, what a critique is worth, the MARV rule, precision and recall."""

import json

import pytest
from pydantic import ValidationError

from eval.statistics import wilson
from pipelines.critique.agent_prompts import CATEGORIES, written_out
from pipelines.critique.known_truth import Known, accuracy, quality
from pipelines.critique.units import (
    PENALTIES,
    Judgement,
    Pair,
    Unit,
    critique_model,
    critique_score,
    preference,
    sentence_of_step,
    sentences,
    validated_by_revisions,
)

RESPONSE = "Step 1: There are 3. They cost $2.50 each.\nStep 2: 3 * 2 = 6\nSo it is 6. Is that all? Yes.\nA: 6"


def unit(first: int, last: int, severity: str = "major") -> Unit:
    return Unit(first_sentence=first, last_sentence=last, flaw="f", criterion="c", severity=severity, suggestion="s")


def judged(category: str) -> Judgement:
    return Judgement(reason="r", category=category)


def test_sentences_are_lines_of_steps_and_sentences_of_prose():
    found = [RESPONSE[start:end] for start, end in sentences(RESPONSE)]
    assert found == [
        "Step 1: There are 3. They cost $2.50 each.",
        "Step 2: 3 * 2 = 6",
        "So it is 6.",
        "Is that all?",
        "Yes.",
        "A: 6",
    ]
    assert sentences("  One e.g. two.  Three\n\n ") == [(2, 15), (17, 22)]
    assert sentence_of_step(RESPONSE, sentences(RESPONSE), 2) == 2
    assert sentence_of_step(RESPONSE, sentences(RESPONSE), 3) is None


def test_a_place_outside_the_response_or_backwards_is_no_place():
    spans = sentences(RESPONSE)
    start, end = unit(3, 4).place(spans)
    assert RESPONSE[start:end] == "So it is 6. Is that all?"
    assert unit(4, 3).place(spans) is None
    assert unit(1, 7).place(spans) is None


def test_the_schema_lets_through_only_places_and_criteria_that_there_are():
    model = critique_model(2, ["arithmetic: sums"], most_units=1, longest=20)
    good = {"first_sentence": 1, "last_sentence": 2, "flaw": "f", "criterion": "arithmetic: sums"}
    good |= {"severity": "minor", "suggestion": "s"}
    model.model_validate({"units": [good], "verdict": "incorrect"})
    for wrong in (
        {"units": [{**good, "last_sentence": 3}], "verdict": "incorrect"},
        {"units": [{**good, "criterion": "style"}], "verdict": "incorrect"},
        {"units": [good, good], "verdict": "incorrect"},
        {"units": [{**good, "more": 1}], "verdict": "incorrect"},
        {"units": [good], "verdict": "perhaps"},
        {"units": [{**good, "flaw": "f" * 21}], "verdict": "correct"},
    ):
        with pytest.raises(ValidationError):
            model.model_validate(wrong)
    assert '"maximum": 2' in json.dumps(model.model_json_schema())


def test_scores_of_critiques_worked_out_by_hand():
    assert set(CATEGORIES) == set(PENALTIES)
    assert critique_score([], []) == 0.0
    # (.75 (1 - 0) + 1 (1 - 1) - 1 * 1) / 2
    assert critique_score(
        [unit(1, 1), unit(2, 2, "critical")], [judged("valid_precise"), judged("wrong_reason")]
    ) == pytest.approx(-0.125)
    # (.5 (1 - .25) - .25 * .5) / 1
    assert critique_score([unit(1, 1, "moderate")], [judged("valid_vague")]) == pytest.approx(0.25)
    assert critique_score([unit(1, 1, "minor")], [judged("valid_minor_as_major")]) == 0.0


def test_the_pair_is_the_best_and_the_worst_and_none_where_all_are_alike():
    assert preference({"a": 0.0, "b": 0.5, "c": -1.0, "d": 0.5}) == Pair("b", "c")
    assert preference({"a": 0.25, "b": 0.25}) is None
    assert preference({}) is None


@pytest.mark.parametrize(
    ("chosen", "rejected", "kept"),
    [
        ([1.0, 0.0], [0.0, 0.0], True),
        ([1.0, 0.0], [1.0, 0.0, 1.0, 0.0], False),  # equal means speak for nothing
        ([0.0, None], [1.0], False),
        ([1.0, None], [0.5, 0.5], True),  # what could not be judged takes no part: mean 1, not 1/2
        ([None, None], [0.0], None),
        ([1.0], [], None),
    ],
)
def test_revisions_keep_a_pair_only_where_the_chosen_critique_earns_more(chosen, rejected, kept):
    assert validated_by_revisions(chosen, rejected) is kept


def test_precision_and_recall_by_hand():
    located = Known(right=False, wrong_sentence=2, cluster="q1")
    labelled = Known(right=False, wrong_sentence=None, cluster="q2")
    right = Known(right=True, wrong_sentence=None, cluster="q3")
    found = quality(
        [(located, [unit(1, 1), unit(2, 3)]), (labelled, []), (right, [unit(1, 1)]), (labelled, [unit(5, 5)])]
    )
    assert found["precision"]["value"] == pytest.approx(2 / 4) and found["precision"]["n"] == 4
    assert found["recall"]["value"] == pytest.approx(2 / 3) and found["recall"]["n"] == 3
    assert found["precision"]["low"] < 0.5 < found["precision"]["high"]
    assert quality([(right, [])]) == {}
    said = accuracy([(located, "incorrect"), (right, "incorrect"), (labelled, "incorrect")])
    low, high = wilson(2, 3)
    assert (said["value"], said["low"], said["high"]) == pytest.approx((2 / 3, low, high))


def test_a_critique_written_out_quotes_what_it_is_about_and_ends_with_the_verdict():
    spans = sentences(RESPONSE)
    text = written_out([unit(2, 2)], "incorrect", RESPONSE, spans)
    assert text == '"Step 2: 3 * 2 = 6": f s\nJudgment: incorrect'
    assert written_out([], "correct", RESPONSE, spans) == "No flaw was found.\nJudgment: correct"
