"""Which samples are criticised, what the critiques say, and how verdicts and places of mistakes are read."""

import time

import pytest

from data_recipes.row import Message, Row
from eval.benchmarks import Answered, critique
from eval.critique import (
    Example,
    Sample,
    asked_for_verdict,
    balanced,
    canonical,
    certainty,
    convincing_pair,
    convincing_wrong,
    correction_row,
    critique_row,
    few_shot_prompt,
    is_critique,
    judging_row,
    lead,
    spread,
    tertiles,
    write_critique,
)
from eval.verifiers import Verdict, fault, step, verdict, verify

SUM = Row(
    id="sum",
    task="chain_sum",
    kind="domain",
    messages=[Message(role="user", content="What is 98 + 93?"), Message(role="assistant", content="191")],
    answer="191",
    verifiers=["number"],
    meta={"working": "98 + 93 = 191"},
)


def samples(*texts: str) -> list[Sample]:
    return [Sample(text, verify(SUM, text), seed) for seed, text in enumerate(texts)]


def test_the_most_frequent_wrong_answer_comes_first_and_unparsed_ones_never():
    wrong = convincing_wrong(samples("181", "no idea", "200", "191", "It is 181.", "no idea", "no idea"))
    assert [(sample.verdict.answer, sample.seed) for sample in wrong] == [("181", 0), ("200", 2)]


def test_certainty_is_the_lead_of_the_most_frequent_answer():
    assert certainty(samples("191", "191", "191", "181")) == 0.5
    assert certainty(samples("191", "181")) == 0.0
    assert certainty(samples("no", "idea")) == 0.0


def test_classes_are_balanced_and_questions_with_both_come_first():
    chosen = balanced(
        {
            "only right": samples("191", "191"),
            "both": samples("191", "181", "181", "7"),
            "only wrong": samples("5", "6", "6"),
            "also only wrong": samples("5"),
            "unparsed": samples("none"),
        },
        limit=10,
    )
    assert [(question, sample.verdict.score) for question, sample in chosen] == [
        ("both", 1.0),
        ("both", 0.0),
        ("only right", 1.0),
        ("only wrong", 0.0),
    ]
    assert chosen[1][1].verdict.answer == "181" and chosen[3][1].verdict.answer == "6"
    assert len(balanced({str(i): samples("191", "181") for i in range(9)}, limit=5)) == 4


def test_a_critique_names_the_working_the_wrong_value_and_the_verdict():
    right, wrong = samples("191", "The answer is 181.")
    assert (
        write_critique(SUM, right.verdict) == "The response says 191. 98 + 93 = 191. The two agree.\nJudgment: correct"
    )
    assert write_critique(SUM, wrong.verdict) == (
        "The response says 181. 98 + 93 = 191. 181 is 10 too low.\nJudgment: incorrect"
    )
    row = critique_row(SUM, wrong, 0.25, "low")
    assert (row.task, row.kind, row.answer, row.verifiers) == (
        "critique/chain_sum",
        "critique",
        "incorrect",
        ["verdict"],
    )
    assert "What is 98 + 93?" in row.question and "The answer is 181." in row.question
    assert verify(row, row.target).score == 1.0
    assert "191" not in row.question, "the truth must not reach the prompt"


def test_a_correction_gives_the_critique_and_wants_a_right_answer():
    right, wrong = samples("It is 191.", "The answer is 181.")
    row, plain = correction_row(SUM, wrong, right), correction_row(SUM, wrong, None)
    assert (row.task, row.kind, row.target, plain.target) == ("correction/chain_sum", "critique", "It is 191.", "191")
    assert "Response: The answer is 181.\n\nCritique: The response says 181." in row.question
    assert verify(row, row.target).score == verify(row, plain.target).score == 1.0
    assert verify(row, "181").score == 0.0, "judged as the question is"
    assert is_critique(critique_row(SUM, wrong, 0.0, "low")) and not is_critique(row)


def test_critiques_of_ones_own_answers_are_measured_by_f1_too():
    """Three wrong responses and a right one; two faults are found, one is invented."""
    answered = []
    for number, (text, said) in enumerate([("181", "incorrect"), ("7", "incorrect"), ("5", ""), ("191", "incorrect")]):
        row = critique_row(SUM, samples(text)[0], 0.1, "low").model_copy(update={"id": f"critique/{number}"})
        found = verify(row, f"Judgment: {said}")
        answered.append(Answered(row, 0, 0, said, "stop", found, found.score or 0.0))
    metrics = critique.metrics(critique.Settings(type="critique"), answered)
    assert metrics["F1 (incorrect)"].value == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metrics["accuracy on right responses"].value == 0.0


def test_a_revision_is_judged_as_the_question_is():
    row = judging_row(critique_row(SUM, samples("181")[0], 0.0, "low"))
    assert (row.question, row.answer, row.verifiers) == ("What is 98 + 93?", "191", ["number"])
    assert row.meta == SUM.meta and verify(row, "It is 191.").score == 1.0 and verify(row, "It is 181.").score == 0.0
    told = {"question": "Which?", "gold": "B", "gold_verifiers": "choice, exact"}
    assert judging_row(row.model_copy(update={"meta": told})).verifiers == ["choice", "exact"]
    assert judging_row(row.model_copy(update={"meta": {"question": "Which?"}})) is None


def test_questions_fall_into_thirds_by_certainty():
    found = tertiles({"a": 0.0, "b": 0.9, "c": 0.5, "d": 0.4, "e": 0.1, "f": 1.0})
    assert found == {"a": "low", "e": "low", "d": "mid", "c": "mid", "b": "high", "f": "high"}
    assert set(tertiles({"a": 1.0, "b": 1.0}).values()) == {"low"}, "equal ones stay together"


def test_spellings_of_one_number_are_one_answer():
    assert canonical("1,200.0") == canonical("1200") == canonical(" 1200.00") == "1200"
    assert canonical("Yes") == canonical("yes ") and canonical("1/2") != canonical("0.5")
    assert len({canonical(text) for text in ("1", "-1", "10", "0.1", "1e400", "nan", "inf", "", "9" * 40)}) == 9
    assert lead(["24", "24.0", "20", None]) == 0.25
    assert lead([]) == lead([None, ""]) == 0.0


def judged(*texts: str) -> list[Sample]:
    """Samples whose answer is their last word."""
    return [Sample(text, Verdict(float(text.endswith("24")), text.split()[-1]), i) for i, text in enumerate(texts)]


def test_a_pair_is_the_most_frequent_wrong_answer_and_of_each_class_the_response_with_most_steps():
    right, wrong = convincing_pair(judged("20", "so\n20", "21\nor\nnot\n21", "24", "surely\n24", "24"))
    assert (right.text, wrong.text) == ("surely\n24", "so\n20")
    assert convincing_pair(judged("24", "24")) is None and convincing_pair(judged("20")) is None
    unparsed = [*judged("24"), Sample("hm", Verdict(None, None), 1)]
    assert convincing_pair(unparsed) is None, "nobody is convinced by what cannot be read"


def test_equal_samples_are_told_apart_by_their_text_not_their_place():
    samples = judged("a 20", "b 20", "c 20", "a 24", "b 24")
    assert {s.text for s in convincing_pair(samples)} == {s.text for s in convincing_pair(samples[::-1])}


def test_spread_keeps_the_order_and_a_smaller_choice_is_part_of_a_larger():
    names = [f"item {i}" for i in range(50)]
    some, more = spread(names, 10, str), spread(names, 20, str)
    assert len(some) == 10 and set(some) < set(more) and some == [name for name in names if name in some]
    assert spread(names, 0, str) == spread(names, 99, str) == names


def test_a_prompt_with_examples_begins_with_principles_and_ends_where_the_critique_begins():
    example = Example("Q1?", "R1", "It is so.", "correct")
    assert few_shot_prompt("Be strict.", [example], " Q2? ", "R2\n") == (
        "Be strict.\n\nQuestion: Q1?\n\nResponse: R1\n\nCritique: It is so.\nJudgment: correct\n\n"
        "Question: Q2?\n\nResponse: R2\n\nCritique:"
    )
    item = asked_for_verdict("i", "t", "Q2?", "R2", False, principles="Be strict.", examples=[example], certainty=0.5)
    assert (item.row.answer, item.row.meta["question"], item.row.meta["certainty"]) == ("incorrect", "Q2?", 0.5)
    assert item.row.target is None and item.stop == ("\n\nQuestion:",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Judgment: not correct", "incorrect"),
        ("Judgment: isn't correct", "incorrect"),
        ("Judgment: not entirely correct.", "incorrect"),
        ("Judgment: partially correct", "incorrect"),
        ("Judgment: The response is incorrect.", "incorrect"),
        ("Judgment: the final answer is not correct", "incorrect"),
        ("Judgment: not incorrect", "correct"),
        ("**Judgment:** Incorrect", "incorrect"),
        ("JUDGEMENT - WRONG", "incorrect"),
        ("Judgment:\n\ncorrect", "correct"),
        ("Judgment: $\\boxed{\\text{incorrect}}$", "incorrect"),
        ("Judgment: correctness", None),
        ("Judgment: incorrect\nNo, wait.\nJudgment: correct", "correct"),
        ("Let me check whether the response is correct.", None),
        ("Is the response correct?", None),
        ("Is it right or wrong?", None),
        ("It would be correct if 5 were 6.", None),
        ("The correct answer is 18, but the response says 26.", None),
        ("The response gives the correct answer.", "correct"),
        ("The response does not give the correct answer.", "incorrect"),
        ("The response gives the wrong answer.", "incorrect"),
        ("The response is right, and the correct answer is indeed 7.", "correct"),
        ("The response isn't wrong.", "correct"),
        ("It is far from correct.", "incorrect"),
        ("It is not only correct but short.", "correct"),
        ("The right triangle has two legs.", None),
        ('End with the line "Judgment: correct" or "Judgment: incorrect".', None),
        ('"Judgment: correct" or "Judgment: incorrect"? The sum is 5.\nJudgment: correct', "correct"),
        ("incorrectly, correctly", None),
        ("", None),
    ],
)
def test_a_verdict_is_never_read_out_of_its_opposite_a_question_or_the_right_answer(text, said):
    assert verdict.read(text, SUM) == said


def test_the_line_extraction_reads_the_judgment_line_only():
    row = critique_row(SUM, samples("181")[0], 0.0, "low")
    assert verify(row, "The response is incorrect.", "line").score is None
    assert verify(row, "The response is correct.\nJudgment: incorrect", "line").score == 1.0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("No", "none"),
        ("none.", "none"),
        ("4", "4"),
        ("Thought 4", "4"),
        ("**Step 03**", "3"),
        ("The answer is 5.", "5"),
        ("Answer: No", "none"),
        ("4\n\nQuestion: another\nAnswer: 9", "4"),
        ("No\n\nThought 2 is wrong", "none"),
        ("Step 3 is the first wrong one, although the final answer is right.\nJudgment: incorrect", "3"),
        ("No step is wrong.\nJudgment: correct", "none"),
        ("The first mistake occurs in Thought 2, and a second one in Thought 5.", "2"),
        ("Thought 1 is correct. Thought 2 is incorrect. Thought 3 is incorrect. So the answer is 2", "2"),
        ("The chain says the answer is 544, but the first mistake is in Thought 2", "2"),
        ("There is a mistake in Thought 4. There are no other mistakes.", "4"),
        ("There is no mistake in Thought 4.", "none"),
        ("There are no mistakes in Thought 1. The first mistake is in Thought 2.", "2"),
        ("No, there is a mistake in step 2", "2"),
        ("All steps are correct.", "none"),
        ("The first mistake is in the third step", None),
        ("12345", None),
        ("Yes", None),
        ("", None),
    ],
)
def test_the_place_of_the_first_mistake(text, place):
    assert step.read(text, SUM) == place


def test_a_place_counts_only_where_it_is_exact():
    row = SUM.model_copy(update={"answer": "3", "verifiers": ["step"]})
    assert [verify(row, text).score for text in ("3", "Step 3", "2", "No", "?")] == [1, 1, 0, 0, None]
    assert fault(row, "2") == "Step 3 is the first wrong one"
    assert fault(row.model_copy(update={"answer": "none"}), "2") == "No step is wrong"


WORDS = (
    "not ",
    "judgment: the ",
    "correct or ",
    "whether ",
    "first mistake a b ",
    "no such ",
    "step 1 ",
    " ",
    "mistake in ",
)


@pytest.mark.parametrize("word", WORDS)
def test_long_texts_are_read_in_linear_time(word):
    start = time.process_time()
    for text in (word * (300_000 // len(word)), word.strip() * 30_000, word + "a" * 300_000):
        verdict.read(text, SUM), step.read(text, SUM)
    assert time.process_time() - start < 6
