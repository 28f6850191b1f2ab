"""Verifiers read an answer as a person would, and agree with reasoning-gym's own scorer."""

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.verifiers import fault, verify


def row(answer: str, *verifiers: str) -> Row:
    return Row(
        id="x",
        task="t",
        kind="domain",
        messages=[Message(role="user", content="?")],
        answer=answer,
        verifiers=list(verifiers),
    )


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("191", "191", 1),
        ("The answer is 191.", "191", 1),
        ("98 + 93 = 191", "191", 1),
        ("2 dogs have 8 legs", "8", 1),
        ("6 + 40 = 46, so the answer is 46 legs, not 10.", "46", 1),
        ("She works 3 days a week.\nA: 26\n", "26", 1),
        ("\\boxed{7} since 3 + 4 = 7.0", "7", 1),
        ("1,234", "1234", 1),
        ("-5", "5", 0),
        ("−5", "-5", 1),
        ("5.0", "5", 1),
        ("The sum is 12; with 1 more it is 13", "13", 1),
        ("h = 8", "8", 1),
        ("The answer is 3 + 5 = 8.", "8", 1),
        ("Answer: 13 - 5 = 8", "8", 1),
        ("x2", "2", None),
        ("I cannot tell.", "2", None),
        ("", "2", None),
    ],
)
def test_number(completion, answer, score):
    assert verify(row(answer, "number"), completion).score == score


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("while, most, But", "while, most, But", 1),
        ("The sorted words are: while, most, but", "while, most, But", 1),
        ("['68', '30']", "['68', '30']", 1),
        ("[68, 30]", "['68', '30']", 1),
        ("[]", "[]", 1),
        ("The new list is ['68'].", "['68']", 1),
        ("1. law\n2. forces\n3. donations", "law, forces, donations", 1),
        ("law\nforces\ndonations", "law, forces, donations", 1),
        ("law, donations, forces", "law, forces, donations", 0),
        ("law, forces", "law, forces, donations", 0),
        ("law, forces and donations.", "law, forces, donations", 1),
        ("To sort the words we first look at them in turn and then compare", "law, forces", None),
        ("", "law", None),
        ("law, forces, and donations", "law, forces, donations", 1),
        ("Come, now, and, yourself", "and, Come, now, yourself", 0),
        ("and, Come, now, yourself", "and, Come, now, yourself", 1),
        ("now, and, yourself", "now, and, yourself", 1),
        ("now, yourself, and", "now, yourself, and", 1),
        ("now, yourself", "now, yourself, and", 0),
        ("The list is: a, b, c\nThe reversed list is: c, b, a", "c, b, a", 1),
        ("The numbers are 69, 19, 25.", "69, 19, 25", 1),
    ],
)
def test_sequence(completion, answer, score):
    assert verify(row(answer, "sequence"), completion).score == score


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("Hayden", "Hayden", 1),
        ("hayden.", "Hayden", 1),
        ('The word is "dior".', "dior", 1),
        ("The reversed word is dior", "dior", 1),
        ("**dior**", "dior", 1),
        ("roid", "dior", 0),
        ("\n", "dior", None),
    ],
)
def test_text(completion, answer, score):
    assert verify(row(answer, "text"), completion).score == score


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("The sum is 191, but the response says 181.\nJudgment: incorrect", "incorrect"),
        ("Judgment: correct", "correct"),
        ("judgement: **Incorrect**.", "incorrect"),
        ("The response is not correct.", "incorrect"),
        ("It is right.", "correct"),
        ("Judgment: incorrect or correct?", "incorrect"),
        ("Let me see.", None),
    ],
)
def test_verdict(completion, verdict):
    assert verify(row("correct", "verdict"), completion).answer == verdict


def test_several_verifiers_count_the_lowest_and_one_unparsed_makes_all_unparsed():
    assert verify(row("7", "number", "text"), "The answer is 7, as 3 + 4 = 7").score == 1
    assert verify(row("7", "number", "text"), "7 apples").score == 0
    assert verify(row("seven", "number", "text"), "seven").score is None


def test_faults_name_the_wrong_value_or_place():
    assert fault(row("191", "number"), "181") == "181 is 10 too low"
    assert fault(row("a, b, c", "sequence"), "a, c, b") == "Item 2 is c but must be b"
    assert fault(row("a, b, c", "sequence"), "a, b") == "It has 2 items instead of 3"
    assert fault(row("dior", "text"), "dirr") == "Letter 3 is r but must be o"


def test_an_unknown_verifier_is_answered_with_the_nearest_one():
    with pytest.raises(UserError, match="did you mean 'number'"):
        verify(row("1", "numbr"), "1")


@pytest.mark.parametrize(
    ("dataset", "verifier", "wrong"),
    [
        ("chain_sum", "number", "99999"),
        ("leg_counting", "number", "3"),
        ("word_sequence_reversal", "sequence", "some, other, words"),
        ("number_filtering", "sequence", "['1', '2', '3']"),
        ("spell_backward", "text", "zzz"),
    ],
)
def test_agrees_with_reasoning_gym_on_right_and_wrong_answers(dataset, verifier, wrong):
    import reasoning_gym

    questions = reasoning_gym.create_dataset(dataset, size=50, seed=3)
    for entry in questions:
        for said in (entry["answer"], wrong):
            theirs = questions.score_answer(said, entry) == 1.0
            assert (verify(row(entry["answer"], verifier), said).score == 1.0) == theirs, (said, entry["answer"])
