"""CriticBench: rows in the published layout, prompts cut and filled, verdicts and answers read, figures of hand-made
answers."""

import json
import time
from math import isclose

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.benchmarks import Answered
from eval.benchmarks.criticbench import Settings, follow_up, items, metrics
from eval.criticbench_prompts import load_prompt
from eval.verifiers import verify
from eval.verifiers.criticbench import EXTRACTIONS, bracketed, exact_match, json_value, math_equal, read

RULE = "# ########## #\n"
CRITIQUE = (
    f"#instruction#\nIs the answer right?\n{RULE}"
    "#Example#\n---\n\nQuestion: 1+1?\nAnswer: 3\nVerdict: [[wrong]]\n\n---\n\n"
    f"Question: 2+2?\nAnswer: 4\nVerdict: [[correct]]\n\n---\n\n{RULE}"
    "#Question#\nQuestion: {question}\nAnswer: {solution}\nVerdict:\n"
    f"{RULE}#Answer Format#\n[[correct/wrong]]\n{RULE}"
)
CORRECTION = (
    f"#instruction#\nImprove it.\n{RULE}"
    f"#Example#\n---\n\nQuestion: 1+1?\nVerdict: bad\nImproved: [[2]]\n\n---\n\n{RULE}"
    "#Question#\nQuestion: {question}\nAnswer: {solution}\nVerdict: {critique}\nImproved:\n"
    f"{RULE}#Answer Format#\n[[]]\n{RULE}"
)
GENERATION = (
    f"#instruction#\n{RULE}#Example#\nQuestion: 1+1?\nAnswer: The answer is 2.\n\n{RULE}"
    f"#Question#\nQuestion: {{question}}\nAnswer:\n{RULE}#Answer Format#\nThe answer is\n{RULE}"
)
JSON_CRITIQUE = CRITIQUE.replace("[[correct/wrong]]\n", "json: verdict\n")
RECORD = {
    "id": 7,
    "question": "What is 40 + 2?",
    "question_source": "GSM8K",
    "question_type": "math",
    "response": "40 + 2 = 43. The answer is 43.",
    "response_label": False,
    "answer": ["42"],
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with the prompts of two sources; returns the writer of its records."""
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    for source in ("GSM8K", "HumanEval"):
        for stage, text in {"generation": GENERATION, "critique": CRITIQUE, "correction": CORRECTION}.items():
            folder = tmp_path / "criticbench_prompts" / "src" / "prompt" / stage / source
            folder.mkdir(parents=True)
            (folder / "few_shot.txt").write_text(text)
            (folder / "zero_shot_chain_of_thought.txt").write_text(JSON_CRITIQUE)
            (folder / "zero_shot_with_chain_of_thought_critique.txt").write_text(CORRECTION)

    def write(*records, **settings):
        (tmp_path / "criticbench").mkdir(exist_ok=True)
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        (tmp_path / "criticbench" / "test.jsonl").write_text("\n".join(lines))
        return items(Settings(type="criticbench", **settings), None)

    return write


def answered(row, text, sample=0, extraction=""):
    verdict = verify(row, text, extraction)
    guess = 1 / len(row.meta["options"]) if row.meta.get("options") else 0.0
    number = 1 if row.meta["stage"] == "correction" else 0
    return Answered(row, number, sample, text, "stop", verdict, guess if verdict.score is None else verdict.score)


def test_a_record_is_asked_for_an_answer_and_for_a_critique_of_its_response(data):
    generation, critique = data(RECORD)
    assert generation.row.question == "Question: 1+1?\nAnswer: The answer is 2.\n\nQuestion: What is 40 + 2?\nAnswer:"
    assert critique.row.question == (
        "Is the answer right?\n---\n\nQuestion: 1+1?\nAnswer: 3\nVerdict: [[wrong]]\n\n---\n\n"
        "Question: 2+2?\nAnswer: 4\nVerdict: [[correct]]\n\n---\n\n"
        "Question: What is 40 + 2?\nAnswer: 40 + 2 = 43. The answer is 43.\nVerdict:"
    )
    assert (generation.row.answer, critique.row.answer) == ("42", "wrong")
    assert (generation.row.task, critique.row.task) == ("criticbench/generation/math", "criticbench/critique/math")
    assert generation.row.meta["cluster"] == critique.row.meta["cluster"]
    assert "\n\nQuestion:" in critique.stop and "\n\n---" in generation.stop
    settings = Settings(type="criticbench")
    assert (settings.max_tokens, settings.temperature, settings.chat) == (512, 0.0, False)


def test_neither_the_answer_nor_the_label_reaches_a_prompt(data):
    other = {**RECORD, "answer": ["a secret"], "response_label": True}
    assert [item.row.prompt for item in data(RECORD)] == [item.row.prompt for item in data(other)]


def test_tasks_choose_the_stages(data):
    assert [item.row.meta["stage"] for item in data(RECORD, tasks="G")] == ["generation"]
    assert [item.row.meta["stage"] for item in data(RECORD, tasks="QC")] == ["critique"]
    [critique] = data(RECORD, tasks="Q")
    assert follow_up(Settings(type="criticbench", tasks="Q"), [answered(critique.row, "[[wrong]]")]) == []


def test_the_correction_is_asked_with_the_models_own_critique_and_only_once(data):
    settings = Settings(type="criticbench")
    generation, critique = data(RECORD)
    said = "{question} is 42, not 43: [[wrong]]"
    first = [answered(generation.row, "The answer is 42."), answered(critique.row, said)]
    [correction] = follow_up(settings, first)
    assert correction.row.question.endswith(f"The answer is 43.\nVerdict: {said}\nImproved:")
    assert correction.row.id == "criticbench/correction/7" and correction.num_samples == 1
    assert follow_up(settings, first) == [correction]  # the same answers, the same questions
    corrected = answered(correction.row, "It is [[42]].")
    assert corrected.score == 1.0 and follow_up(settings, [*first, corrected]) == []


def test_every_sample_of_a_critique_gets_a_correction_of_its_own(data):
    _, critique = data(RECORD)
    samples = [answered(critique.row, text, sample) for sample, text in enumerate(("a [[wrong]]", "b [[correct]]"))]
    made = follow_up(Settings(type="criticbench", num_samples=2), samples)
    assert [item.row.id for item in made] == ["criticbench/correction/7", "criticbench/correction/7/1"]
    assert ["b [[correct]]" in item.row.question for item in made] == [False, True]


def test_blanks_in_a_question_or_response_are_left_as_they_are(data):
    generation, critique = data({**RECORD, "question": "{solution}", "response": "{question} {critique} {0.__class__}"})
    assert critique.row.question.endswith("Question: {solution}\nAnswer: {question} {critique} {0.__class__}\nVerdict:")
    assert generation.row.question.endswith("Question: {solution}\nAnswer:")


def test_examples_are_dropped_from_the_end_until_the_prompt_fits(data):
    data(RECORD)
    prompt = load_prompt("critique", "GSM8K", "fs")
    values = {"question": "Q", "solution": "S"}
    whole = prompt.text(values)

    def words(text):
        return len(text.split())

    assert prompt.fitting(values, words, words(whole)) == (whole, 2)
    text, kept = prompt.fitting(values, words, words(whole) - 1)
    assert kept == 1 and text == (
        "Is the answer right?\n---\n\nQuestion: 1+1?\nAnswer: 3\nVerdict: [[wrong]]\n\n---\n\n"
        "Question: Q\nAnswer: S\nVerdict:"
    )
    text, kept = prompt.fitting(values, words, 3)
    assert kept == 0 and text == "Is the answer right?\n---\n\nQuestion: Q\nAnswer: S\nVerdict:"


def test_zero_shot_asks_for_json_and_its_verdict_is_read(data):
    _, critique = data(RECORD, prompt="zs-crit-cot")
    assert critique.row.meta["answer_format"] == "json: verdict"
    said = '{"analysis": "nothing is incorrect here", "verdict": "correct"}'
    assert read(said, critique.row) == EXTRACTIONS["compat"](said, critique.row) == "correct"
    broken = '{"analysis": "fine", "verdict": wrong}'
    assert read(broken, critique.row) == EXTRACTIONS["compat"](broken, critique.row) == "wrong"


def row_of(source, stage="generation", answers=("",), answer_format="The answer is", question="", right=False):
    return Row(
        id="one",
        task="t",
        kind="domain",
        messages=[Message(role="user", content="?")],
        answer=("correct" if right else "wrong") if stage == "critique" else answers[0],
        verifiers=["criticbench"],
        meta={"stage": stage, "source": source, "answers": list(answers), "answer_format": answer_format}
        | {"question": question, "right": right, "tests": answers[0]},
    )


@pytest.mark.parametrize(
    ("text", "ours", "published"),
    [
        ("So the verdict is: [[wrong]]", "wrong", "wrong"),
        ("... [[ Correct ]]", "correct", "correct"),
        ("[[incorrect]]", "wrong", "wrong"),
        ("The answer is incorrect.", "wrong", "wrong"),
        ("The answer is not correct.", "wrong", "wrong"),
        ("The answer is correct.", "correct", "correct"),
        ("Nothing is wrong with it. [[correct]]", "correct", "correct"),
        ("[[correct]] or [[wrong]]? It is [[correct]]", "correct", "wrong"),  # two verdicts: any "wrong" decides
        ("One step looks wrong, but the answer is correct", "correct", "wrong"),
        ("I cannot tell.", None, None),
        ("", None, None),
        ("[[maybe]]", None, None),
        ("\0[[<b>wrong</b>]]", "wrong", "wrong"),
        ("[[" * 400_000, None, None),
        ("word " * 200_000, None, None),
    ],
)
def test_verdicts_as_read_by_us_and_by_the_repository(text, ours, published):
    row = row_of("GSM8K", "critique")
    assert (read(text, row), EXTRACTIONS["compat"](text, row)) == (ours, published)


ANSWERS = [
    ("GSM8K", "She has 3 + 4 = 7 left. The answer is $1,234.", "1234", 1.0),
    ("GSM8K", "no number", None, None),
    ("GSM8K", "The answer is 0.42", "0.42", 1.0),  # 42 in percent
    ("Object Counting", "So the answer is 8.", "8", 1.0),
    ("MATH", "so we get $\\boxed{\\dfrac{1}{2}}$. The answer is \\dfrac{1}{2}", "\\frac{1}{2}", 1.0),
    ("MATH", "The answer is $x=5$.", "5", 1.0),
    ("MATH", "box it: \\boxed{3", "3", 1.0),
    ("MATH", "\\boxed", None, None),
    ("AQuA", "9 + 90(2) = 1392. The answer is B).", "B", 1.0),
    ("AQuA", "It must be (C)", "C", 0.0),
    ("CSQA", "the closest is bitterness. So the answer is (c).", "c", 1.0),
    ("CSQA", "I am sure of (a), no: (c)", "c", 1.0),
    ("StrategyQA", "So the answer is no.", "no", 1.0),
    ("StrategyQA", "So the answer is No, as far as we know", "no", 1.0),
    ("AmbigNQ", "Kitt was voiced by him. So the answer is: William Daniels", "William Daniels", 1.0),
    ("AmbigNQ", "The answer is the William Daniels.", "the William Daniels", 1.0),
    ("HotpotQA", "It aired in September. The answer is 2006.", "2006", 1.0),
    ("TabMWP", "The answer is 3/4.", "3/4", 1.0),
    ("TabMWP", "The answer is (B).", "B", 0.0),
    ("Repeat Copy", " can you draw squiggly line squiggly line\n", "can you draw squiggly line squiggly line", 1.0),
]
GOLD = {
    **{"GSM8K": "1234", "Object Counting": "8", "MATH": "\\frac{1}{2}", "AQuA": "B", "CSQA": "C", "StrategyQA": "no"},
    **{"AmbigNQ": "william daniels", "HotpotQA": "2006", "TabMWP": "3/4"},
    "Repeat Copy": "can you draw squiggly line squiggly line",
}


@pytest.mark.parametrize(("source", "text", "answer", "score"), ANSWERS)
def test_answers_of_every_data_set_are_read_and_judged(source, text, answer, score):
    gold = {"0.42": "42", "5": "5", "3": "3"}.get(answer, GOLD[source])
    verdict = verify(row_of(source, answers=("another", gold)), text)
    assert (verdict.answer, verdict.score) == (answer, score)


@pytest.mark.parametrize(
    ("source", "stage", "text", "ours", "published"),
    [
        ("StrategyQA", "generation", "So the answer is yes, we know that.", "yes", None),  # "know" holds a no
        ("TabMWP", "generation", "The answer is 3/4.", "3/4", "."),
        ("AmbigNQ", "generation", "The answer is Ann", "Ann", "The answer is Ann"),
        ("Repeat Copy", "correction", "Improved: [[a a]]", "a a", "Improved: [[a a]]"),
        ("MATH", "correction", "so it is [[7/6]]", "\\frac{7}{6}", "6"),
        ("GSM8K", "correction", "First [[41]], then [[42]]. 7 words", "42", "42"),
    ],
)
def test_quirks_of_the_repository_stay_behind_compat(source, stage, text, ours, published):
    row = row_of(source, stage, answer_format="[[]]" if stage == "correction" else "The answer is")
    assert (read(text, row), EXTRACTIONS["compat"](text, row)) == (ours, published)


@pytest.mark.parametrize(
    ("given", "right", "equal"),
    [
        ("1,000", "1000", True),
        ("0.5", "50", True),
        ("50", "0.5", True),
        ("10000.5", "10000", True),  # within 1e-4
        ("10002", "10000", False),
        ("{x}", "x", True),
        ("[1, 2]", "[1,2.0]", True),
        ("(1,2)", "[1,2]", False),
        ("(1,2)", "(1,2,3)", False),
        ("", "", False),
        ("nan", "nan", False),
        ("(" * 900, ")" * 900, True),  # nothing but brackets: the same nothing
        ("yes", "no", False),
    ],
)
def test_numbers_agree_also_in_percent_and_texts_but_for_brackets(given, right, equal):
    assert math_equal(given, right) is equal


def test_words_agree_whatever_their_case_articles_and_punctuation():
    assert exact_match("The  Beatles!", "beatles") and not exact_match("Beatles for Sale", "beatles")


def test_brackets_and_json_are_found_where_they_are_broken():
    assert bracketed("[[a]] [[b\n]] [[[c]]") == "[c" and bracketed("[[ [") is None
    assert json_value('{"answer": 5} {"answer": 6}', "answer") == "5"
    assert json_value("[" * 100_000, "answer") is None and json_value("7", "answer") is None
    assert json_value('{"code": "x = 1", oops}', "code") == 'code": "x = 1", oops}'


TESTS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n\ncheck(double)"
HEAD = 'def double(x: int) -> int:\n    """Twice x."""\n'
CODE = {
    "body alone": ("    return 2 * x\n", 1.0),
    "whole function": (f"{HEAD}    return x + x", 1.0),
    "wrong": ("    return x", 0.0),
    "in marks": (f"[BEGIN]\n{HEAD}    return 2 * x\n[DONE]\nThat is all.", 1.0),
    "fenced": (f"Here:\n```python\n{HEAD}    return 2 * x\n```\nDone.", 1.0),
    "no Python": ("I cannot say.", 0.0),
    "ends the process": ("    import os\n    os._exit(0)\n", 0.0),
    "empty": ("  \n", None),
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_run_on_its_tests(name):
    text, score = CODE[name]
    verdict = verify(row_of("HumanEval", answers=(TESTS,), question=HEAD, answer_format="code"), text)
    assert verdict.score == score


def test_the_repository_runs_fences_and_json_as_they_stand():
    row = row_of("HumanEval", "correction", (TESTS,), "json: code", question=HEAD)
    said = json.dumps({"code": f"{HEAD}    return 2 * x"})
    assert verify(row, said).score == 1.0 and verify(row, said, "compat").score == 0.0
    mbpp = row_of("MBPP", answers=("assert double(2) == 4",), answer_format="code")
    assert verify(mbpp, f"{HEAD}    return 2 * x\n[DONE]", "compat").score == 1.0
    assert verify(mbpp, f"```python\n{HEAD}    return 2 * x\n```", "compat").score == 0.0


def critiques(data, labels, kinds=None):
    kinds = kinds or ["math"] * len(labels)
    records = [
        {**RECORD, "id": n, "question": f"{n}?", "response_label": right, "question_type": kind}
        for n, (right, kind) in enumerate(zip(labels, kinds, strict=True))
    ]
    return [item.row for item in data(*records, tasks="Q")]


def test_critique_f1_takes_wrong_as_the_class_and_pools_all_records(data):
    rows = critiques(data, [False, False, False, True, True], ["math", "math", "code", "code", "code"])
    said = ["[[wrong]]", "[[correct]]", "[[wrong]]", "[[wrong]]", "[[correct]]"]
    answers = [answered(row, text) for row, text in zip(rows, said, strict=True)]
    found = metrics(Settings(type="criticbench", tasks="Q"), answers)
    assert isclose(found["critique F1"].value, 2 * 2 / (3 + 3))  # 2 found of 3, with 1 false alarm
    assert isclose(found["critique F1, math"].value, 2 * 1 / (1 + 2))
    assert isclose(found["critique F1, code"].value, 2 * 1 / (2 + 1))
    assert found["critique F1"].low < found["critique F1"].value < found["critique F1"].high
    assert "generation" not in found and "correction" not in found


def test_an_unread_verdict_is_the_opposite_of_the_truth_under_compat_only(data):
    rows = critiques(data, [False, True, True])
    answers = [answered(row, text) for row, text in zip(rows, ["[[wrong]]", "?", "[[correct]]"], strict=True)]
    ours = metrics(Settings(type="criticbench"), answers)["critique F1"].value
    published = metrics(Settings(type="criticbench", extraction="compat"), answers)["critique F1"].value
    assert ours == 1.0 and isclose(published, 2 * 1 / (1 + 2))


def test_corrections_tell_what_they_mend_and_what_they_spoil(data):
    records = [{**RECORD, "id": n, "question": f"{n}?", "response_label": n < 2} for n in range(5)]
    rows = [item.row for item in data(*records)]
    critique = [answered(row, "[[wrong]]") for row in rows if row.meta["stage"] == "critique"]
    generated = [answered(row, "The answer is 42.") for row in rows if row.meta["stage"] == "generation"]
    made = follow_up(Settings(type="criticbench"), critique)
    said = ["[[42]]", "[[41]]", "[[42]]", "[[42]]", "no idea"]
    corrected = [answered(item.row, text) for item, text in zip(made, said, strict=True)]
    found = metrics(Settings(type="criticbench"), [*generated, *critique, *corrected])
    assert found["generation"].value == 1.0 and isclose(found["correction"].value, 3 / 5)
    assert isclose(found["correction, mended"].value, 2 / 3) and found["correction, spoilt"].value == 1 / 2
    assert isclose(found["critique F1"].value, 2 * 3 / (5 + 3))
    assert metrics(Settings(type="criticbench"), []) == {}


CODE_RECORD = {**RECORD, "question_source": "HumanEval", "question": HEAD, "answer": [TESTS]}


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({k: v for k, v in RECORD.items() if k != "response"}, "record test.jsonl:1 has no 'response'"),
        ({k: v for k, v in RECORD.items() if k != "id"}, "has no 'id'"),
        ({**RECORD, "answer": None}, "has no 'answer'"),
        ({**RECORD, "answer": []}, "its list of answers is empty"),
        ({**RECORD, "response_label": "maybe"}, "response_label is 'maybe', not true or false"),
        ({**RECORD, "response_label": 2}, "response_label is 2, not true or false"),
        ({**RECORD, "question_source": "GSM-8K"}, "unknown question_source 'GSM-8K' (did you mean 'GSM8K'?)"),
        ({**RECORD, "question_source": "CSQA"}, "no readable prompt of CriticBench"),
        ({**CODE_RECORD, "answer": ["assert ("]}, "the tests are no Python"),
        ('{"id": 1, "question": "cut o', "line 1: not a JSON object"),
    ],
)
def test_a_damaged_record_is_one_sentence(data, record, problem):
    with pytest.raises(UserError) as error:
        data(record)
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_prompt_file_names_the_section_it_lacks(data, tmp_path):
    path = tmp_path / "criticbench_prompts" / "src" / "prompt" / "critique" / "GSM8K" / "few_shot.txt"
    path.write_text(CRITIQUE.replace("#Question#", "#Frage#"))
    with pytest.raises(UserError, match="few_shot.txt: no section #Question#; fetch"):
        data(RECORD)


def test_without_the_items_it_says_that_they_are_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    with pytest.raises(UserError, match="criticbench/test.jsonl: no such file"):
        items(Settings(type="criticbench"), None)


def test_two_responses_to_one_question_are_one_cluster(data):
    asked = data(RECORD, {**RECORD, "id": 8, "response": "It is 42.", "response_label": True})
    assert len({item.row.id for item in asked}) == 4 and len({item.row.meta["cluster"] for item in asked}) == 1


HOSTILE = [
    "{",
    "[[",
    "1/",
    "boxed{",
    "he answer is ",
    "\\text{",
    "(a",
    '{"answer": ',
    "```",
    "9",
    "\n",
    "\0\x1b[2J",
    "A) ",
]
"""What the patterns look for, over and over: 40 kB of it takes a quadratic one many seconds."""


@pytest.mark.parametrize("source", [*GOLD, "MBPP", "HumanEval", "Penguins", "unheard of"])
def test_hostile_completions_are_read_in_no_time(source):
    start = time.process_time()
    for answer_format in ("The answer is", "[[]]", "json: answer"):
        for text in ("", *(sign * (40_000 // len(sign)) for sign in HOSTILE)):
            for reader in (read, EXTRACTIONS["compat"]):
                answer = reader(text, row_of(source, "correction", answer_format=answer_format))
                assert answer is None or (isinstance(answer, str) and answer)
    assert time.process_time() - start < 4
