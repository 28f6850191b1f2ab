"""Verifiers read an answer as a person would, and agree with reasoning-gym's own scorer."""

import json
import random
import threading
import time

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval import mathematics
from eval.verifiers import fault, load_verifier, verify


def row(answer: str, *verifiers: str, question: str = "?") -> Row:
    return Row(
        id="x",
        task="t",
        kind="domain",
        messages=[Message(role="user", content=question)],
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


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("So the sum is \\boxed{\\frac{1}{2}}.", "\\frac12", 1),
        ("\\boxed{0.5}", "\\dfrac{1}{2}", 1),
        ("\\boxed{\\text{Evelyn}}", "Evelyn", 1),
        ("The final answer is $2\\sqrt{3}$. I hope it is correct.", "\\sqrt{12}", 1),
        ("The answer is 1/2 of it, as I said.", "3", 0),
        ("Answer: [2, 3)", "[2,3)", 1),
        ("\\boxed{(2,3)}", "[2,3)", 0),
        ("\\boxed{50}", "50\\%", 1),
        ("\\boxed{12 \\text{ dollars}}", "12", 1),
        ("\\boxed{2/3 \\pi}", "\\frac{2}{3}\\pi", 1),
        ("\\boxed{3, 2}", "2,3", 1),
        ("\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", 1),
        ("\\boxed{(x+1)^2}", "The square is $\\boxed{x^2 + 2x + 1}$.", 1),
        ("\\boxed{3} is wrong, so \\boxed{4}", "4", 1),
        ("First \\boxed{4}, or rather \\boxed{5 + ", "4", 1),
        ("We get \\[ x = 7 \\]", "7", 1),
        ("3 + 4 = 7", "7", 1),
        ("\\boxed{-3}", "3", 0),
        ("no idea", "3", None),
        ("", "3", None),
    ],
)
def test_math(completion, answer, score):
    assert verify(row(answer, "math"), completion).score == score


def test_mathematics_without_end_is_wrong_and_the_next_question_is_answered(monkeypatch):
    monkeypatch.setattr(mathematics, "SECONDS", 1)
    endless = row("12", "math")
    assert verify(endless, "\\boxed{10^{10^{10}}}").score == 0
    assert fault(endless, "10^{10^{10}}") == "10^{10^{10}} cannot be compared within 5 seconds"
    assert verify(row("\\frac{3}{7}", "math"), "\\boxed{6/14}").score == 1


def test_mathematics_is_compared_in_any_thread_and_after_its_process_was_killed():
    assert mathematics.equal("x+1", "1+x")
    mathematics._process._process.kill()
    found = []
    thread = threading.Thread(target=lambda: found.append(mathematics.equal("x+2", "2+x")))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_machine_that_cannot_compare_raises_instead_of_calling_it_wrong(monkeypatch):
    monkeypatch.setattr(mathematics, "PATIENCE", 0)
    mathematics._stop()
    with pytest.raises(RuntimeError, match="failed twice .no answer within 0 seconds"):
        mathematics.equal("x+3", "3+x")


def test_a_verifier_called_math_hides_nothing():
    import math

    assert math.sqrt(4) == 2 and load_verifier("math").__name__ == "eval.verifiers.math"


MEDICAL, TWEET = "Is it? Answer with yes, no or maybe only.", "Is it bearish, bullish or neutral?"


@pytest.mark.parametrize(
    ("question", "completion", "answer", "label"),
    [
        (MEDICAL, "The answer is maybe because the interval is wide.", "yes", "maybe"),
        (MEDICAL, "Yes, as the findings support it.", "yes", "yes"),
        (MEDICAL, "**No**", "no", "no"),
        (MEDICAL, "There is no difference, so the answer is yes.", "yes", "yes"),
        (MEDICAL, "No difference was found.", "no", None),
        (MEDICAL, "No, they did not differ.", "no", "no"),
        (MEDICAL, "Yes at first sight.\nFinal decision: no", "no", "no"),
        (MEDICAL, "The answer is not yes.", "no", None),
        (MEDICAL, "yes or no", "yes", None),
        (MEDICAL, "\\boxed{\\text{Maybe}}", "maybe", "maybe"),
        (MEDICAL, "It may be.", "maybe", None),
        (MEDICAL, "", "yes", None),
        (TWEET, "The tweet is bullish.", "bullish", "bullish"),
        (TWEET, "Neither bullish nor bearish, so neutral", "neutral", "neutral"),
        (TWEET, "It is not bearish but neutral.", "neutral", "neutral"),
        (TWEET, "It isn't bearish.", "bearish", None),
        (TWEET, "more bullish than bearish", "bullish", None),
        (TWEET, "Sentiment: Bearish (price cut)", "bearish", "bearish"),
        ("Is the argument valid or invalid?", "So the argument is not valid.", "invalid", "invalid"),
        ("not ( True ) is", "not ( True ) = False. So the answer is False.", "False", "false"),
        ("Is it plausible?", "So the answer is no.", "yes", "no"),
    ],
)
def test_label(question, completion, answer, label):
    verdict = verify(row(answer, "label", question=question), completion)
    assert verdict.answer == label
    assert verdict.score == (None if label is None else label == answer.casefold())


def spans(*texts: str, scale: str = "") -> str:
    return json.dumps({"spans": list(texts), "scale": scale})


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("-22.22%", "-22.22 percent", 1),
        ("-22.2166", "-22.22 percent", 1),  # rounded to two places, as the official script does
        ("-22.2", "-22.22 percent", 0),
        ("-0.2222", "-22.22 percent", 1),
        ("22.22", "-22.22 percent", 0),
        ("The change is (22.22)%, from 2018 to 2019.", "-22.22 percent", 1),
        ("$(12.6) million", "-12.6 million", 1),
        ("-12,600,000", "-12.6 million", 1),
        ("-0.0126 billion", "-12.6 million", 1),
        ("-12.6 thousand", "-12.6 million", 0),
        ("44.1 - 56.7 = -12.6", "-12.6 million", 1),
        ("There are 4.", "4", 1),
        ("none", "4", None),
        ("The total sales in 2019 was $1,496.5 million.", spans("$1,496.5", scale="million"), 1),
        ("0.5", spans("$0.5 million"), 0),
        ("fiscal 2019", spans("2019"), 1),
        ("Modified retrospective method.", spans("the modified retrospective method"), 1),
        ("The method was the modified retrospective method.", spans("the modified retrospective method"), 1),
        ("retrospective", spans("the modified retrospective method"), 0),
        ("cost-plus, fixed-price and time-and-material", spans("fixed-price", "cost-plus", "time-and-material"), 1),
        ("- fixed-price\n- cost-plus", spans("fixed-price", "cost-plus"), 1),
        ("fixed-price; cost-plus; other", spans("fixed-price", "cost-plus"), 0),
        ("57,768, 73,260", spans("73,260", "57,768", scale="thousand"), 1),
        ("2019: $73,260 thousand\n2018: $57,768 thousand", spans("73,260", "57,768", scale="thousand"), 1),
        ("73,260", spans("73,260", "57,768", scale="thousand"), 0),
        ("-66%; -223%", spans("(66)%", "(223)%", scale="percent"), 1),
        ("", spans("x"), None),
    ],
)
def test_financial(completion, answer, score):
    assert verify(row(answer, "financial"), completion).score == score


def test_words_in_common_count_for_a_part_in_the_f1_of_spans_and_not_of_figures():
    overlap = load_verifier("financial").FIGURES["F1"]
    assert overlap("cost-plus contract", row(spans("cost-plus type"), "financial")) == (0.5, 1)
    assert overlap("cost-plus; fixed-price", row(spans("fixed-price", "cost-plus"), "financial")) == (1, 1)
    assert overlap("12.5", row("12.6 million", "financial")) == overlap("", row("12.6", "financial")) == (0, 1)


OPTIONS = "Which?\nOptions:\n(A) this\n(B) that"


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("It rhymes. So the answer is (B).", "(B)", 1),
        ("(B) that", "(B)", 1),
        ("The answer is A", "(B)", 0),
        ("So the answer is True.", "True", 1),
        ("A * B = 123. So the answer is -123.", "-123", 1),
        ('We need "]", "}", "]". So the answer is ] } ].', "] } ]", 1),
        ("[ { [ ] } ]", "] } ]", 1),
        ("]}]", "] } ]", 1),
        ("] }", "] } ]", 0),
        ("So the answer is costume counterpart oven.", "costume counterpart oven", 1),
        ("Sorted:\n\n1. costume\n2. counterpart\n3. Oven", "costume counterpart oven", 1),
        ("The answer is:\n- costume\n- counterpart\n- oven", "costume counterpart oven", 1),
        ("counterpart, costume, oven", "costume counterpart oven", 0),
        ("So the answer is Monsters, Inc.", "Monsters, Inc", 1),
        ("I cannot tell", "(B)", None),
        ("", "oven", None),
    ],
)
def test_bbh(completion, answer, score):
    assert verify(row(answer, "bbh", question=OPTIONS), completion).score == score


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("[ANSWER]\nf(1) == [(4, 1)]\n[/ANSWER]", "[(4, 1)]", 1),
        ("[ANSWER][(4,1)][/ANSWER] as 4 > 1", "[(4, 1)]", 1),
        ("The output is 'abc'.", "'abc'", 1),
        ("assert f(2) == {'b': 1, 'a': 2}", "{'a': 2, 'b': 1}", 1),
        ("```python\n[1, 2.0]\n```", "[1, 2]", 1),
        ("[ANSWER]__import__('os').getpid()[/ANSWER]", "1", None),
        ("abc", "'abc'", None),
        ("[1]", "[2]", 0),
    ],
)
def test_literal(completion, answer, score):
    assert verify(row(answer, "literal"), completion).score == score


INSTRUCTIONS = json.dumps(
    {
        "instruction_id_list": [
            "detectable_format:title",
            "detectable_format:number_bullet_lists",
            "detectable_content:number_placeholders",
            "length_constraints:number_sentences",
            "detectable_format:number_highlighted_sections",
            "change_case:capital_word_frequency",
            "language:response_language",
            "length_constraints:number_paragraphs",
            "detectable_format:json_format",
        ],
        "kwargs": [
            {},
            {"num_bullets": 1},
            {"num_placeholders": 1},
            {"relation": "at least", "num_sentences": 2},
            {"num_highlights": 1},
            {"capital_relation": "at least", "capital_frequency": 3},
            {"language": "en"},
            {"num_paragraphs": 2},
            {},
        ],
    }
)
JUDGED = {  # name -> answers, one of every kind it reads
    "choice": ["A"],
    "sequence": ["a, b"],
    "number": ["5"],
    "text": ["x"],
    "name": ["Bob"],
    "verdict": ["correct"],
    "math": ["5"],
    "label": ["yes"],
    "bbh": ["(A)", "] ]", "a b"],
    "literal": ["[1]"],
    "financial": ["5 percent", spans("a", "b")],
    "constraints": [INSTRUCTIONS],
}
PIECES = [
    " ",
    "\n",
    ".",
    "(",
    "<",
    "*",
    "$",
    "1",
    '"',
    "\\boxed{",
    "$a",
    "the answer is ",
    "[a",
    "\n*",
    "not yes ",
    "p.",
]


@pytest.mark.parametrize("name", JUDGED)
def test_hostile_text_of_up_to_a_megabyte_takes_linear_time(name):
    verifier = load_verifier(name)
    looks_at_all_of_it = name in ("number", "text", "name", "verdict", "sequence")
    size = 200_000 if looks_at_all_of_it else 1_000_000
    for answer in JUDGED[name]:
        judged = row(answer, name, question=f"Bob met Ann. {OPTIONS}")
        verifier.read("warm up", judged)  # what is loaded once is not counted
        for piece in PIECES:
            text = f"a{piece * (size // len(piece))}b"
            start = time.process_time()
            read = verifier.read(text, judged)
            assert read is None or verifier.score(read, judged) in (0.0, 1.0)
            assert time.process_time() - start < 8, (answer, piece)  # a quadratic pattern takes hours


@pytest.mark.parametrize("name", JUDGED)
def test_no_text_makes_a_verifier_fail(name):
    """1,000 texts of random characters of all of Unicode among pieces that verifiers look for."""
    verifier = load_verifier(name)
    generator = random.Random(name)
    pieces = [
        "the answer is ",
        "\\boxed{",
        "}",
        "$",
        "(A)",
        "yes",
        "not ",
        "Judgment: ",
        "[ANSWER]",
        "==",
        "1",
        "[",
        "]",
    ]
    pieces += ["\n", " ", ".", ",", ":", "%", "million", "**", "- ", "'", '"', "\\frac{1}{", "^", "{", "\x00", "\ud800"]
    answers = JUDGED.get(name, ["A"])
    for number in range(1000):
        text = "".join(
            generator.choice(pieces) if generator.random() < 0.6 else chr(generator.randrange(0x110000))
            for _ in range(generator.randrange(30))
        )
        judged = row(answers[number % len(answers)], name, question=f"Bob met Ann. {OPTIONS}")
        for extract in (verifier.read, *getattr(verifier, "EXTRACTIONS", {}).values()):
            read = extract(text, judged)
            assert read is None or 0.0 <= verifier.score(read, judged) <= 1.0
