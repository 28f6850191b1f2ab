"""CriticEval: rows in the published layout, prompts read from Python files without running them, ratings, comparisons
in both orders, corrections, and the overall score."""

import json
from math import isclose

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.agreement import FIRST, SECOND, TIE
from eval.benchmarks import Answered
from eval.benchmarks.criticeval import DOMAINS, Settings, items, metrics, overall, pair_is_right, scores
from eval.criticeval_prompts import constants_of
from eval.verifiers import verify
from eval.verifiers.rating import EXTRACTIONS, last_number, read

PROMPTS = """_end = '''---
Write `Score: x`.
'''
_rate = {
    'qa': {
        'prefix_prompt': '''You\\'re given an answer.
''',
        'post_prompt': 'Write '
                       '`Decision: x`.'
    },
    'math_cot': {'prefix_prompt': 'Rate.\\n', 'post_prompt': '\\nDecision?'},
    'math_pot': {'prefix_prompt': 'Rate.\\n', 'post_prompt': '\\nDecision?'},
    'code_exec': {'prefix_prompt': 'Rate.\\n', 'post_prompt': '\\nDecision?'},
}
prompts = {
    'feedback': {'sub': {}, 'obj': _rate, # 'obj': _old,
    },
    'comp_feedback': {'sub': {}, 'obj': _rate},
    'correction': _rate,
    'meta_feedback': {'qa': {'prefix_prompt': 'Rate the feedback.\\n', 'post_prompt': _end}},
}
print(undefined_name)
"""
FORMATS = """plain = {'qa': '''### Question:
{question}
### Answer:
{generation}
''', 'math_cot': '{question}|{generation}|{feedback}', 'math_pot': '{question}',
'code_exec': '{question}|{unit_test}|{generation}|{exec_rest}'}
mappings = {
    'feedback': plain,
    'correction': plain,
    'comp_feedback': {'qa': '{question}|A: {generation_a}|B: {generation_b}',
                      'code_exec': '{generation_a} {exec_rest_a}|{generation_b} {exec_rest_b}'},
    'meta_feedback': {'qa': '{question}|{ground_truth_feedback}|{evaluated_feedback}'},
}
"""
RATED = {"question": "Why?", "generation": "Because.", "feedback_score": 3, "metadata": {"quality": "low"}}
PAIR = {
    "question": "Which?",
    "obj": {"generation_a": "Left.", "generation_b": "Right.", "preference": "ansA"},
    "sub": {"generation_a": "not this"},
    "metadata": {"quality_a_sub": "high", "quality_b_sub": "low"},
}
META = {"question": "Why?", "ground_truth_feedback": "Good.", "evaluated_feedback": "Hm.", "meta_feedback_score": 6.0}
MATH = {"question": "40 + 2?", "generation": "43", "feedback": "Add again.", "ground_truth_answer": "The answer is 42."}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Write files of records under WHETSTONE_DATA, and read the rows of one dimension; other domains are empty."""
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    utils = tmp_path / "criticeval" / "inference" / "utils"
    utils.mkdir(parents=True)
    (utils / "prompts.py").write_text(PROMPTS)
    (utils / "formats.py").write_text(FORMATS)
    names = [f"{domain}{kind}" for domain in DOMAINS for kind in ("_feedback_correction", "_comp_feedback")]
    names += [f"correction_part/{domain}_feedback" for domain in DOMAINS]
    names += [f"meta_feedback_single/meta_feedback_singlewise_{domain}" for domain in DOMAINS]

    def rows(dimensions, files, split="dev"):
        folder = tmp_path / "criticeval" / f"obj_{split}_data"
        for name in names:
            path = folder / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            given = files.get(name, [])
            path.write_text(given if isinstance(given, str) else json.dumps(given))
        return items(Settings(type="criticeval", dimensions=dimensions, split=split), None)

    return rows


def answered(row, text, sample=0, extraction=""):
    verdict = verify(row, text, extraction)
    return Answered(row, 0, sample, text, "stop", verdict, verdict.score or 0.0)


def test_a_rating_is_asked_with_the_published_prompt_around_the_record(data):
    files = {"qa_feedback_correction": [RATED], "correction_part/qa_feedback": [{**RATED, "feedback_score": 7}]}
    rows = data(["feedback"], files)
    assert [(row.id, row.answer) for row in rows] == [
        ("criticeval/feedback/qa/0", "3"),
        ("criticeval/feedback/qa/high/0", "7"),
    ]
    assert rows[0].question == (
        "You're given an answer.\n### Question:\nWhy?\n### Answer:\nBecause.\nWrite `Decision: x`."
    )
    assert rows[0].meta["cluster"] == rows[1].meta["cluster"] and rows[0].meta["scale"] == (1, 7)


def test_a_comparison_is_two_rows_with_outputs_and_letter_turned(data):
    given, swapped = data(["comparison"], {"qa_comp_feedback": [PAIR]})
    assert "Which?|A: Left.|B: Right." in given.question and "Which?|A: Right.|B: Left." in swapped.question
    assert (given.answer, swapped.answer) == ("A", "B")
    assert given.meta["pair"] == swapped.meta["pair"] and given.meta["order"] == "given"
    tie = data(["comparison"], {"qa_comp_feedback": [{**PAIR, "obj": {**PAIR["obj"], "preference": "ansC"}}]})
    assert [row.answer for row in tie] == ["C", "C"]


def test_execution_results_turn_with_their_programs(data):
    pair = {
        **PAIR,
        "obj": {**PAIR["obj"], "exec_rest_a": {"status": "NOT PASSED", "detail": "bad"}, "exec_rest_b": "ok"},
    }
    given, swapped = data(["comparison"], {"code_exec_comp_feedback": [pair]})
    assert "Left. bad|Right. ok" in given.question and "Right. ok|Left. bad" in swapped.question


def test_no_label_reaches_a_prompt(data):
    def prompts(score, preference, meta):
        files = {
            "qa_feedback_correction": [{**RATED, "feedback_score": score}],
            "qa_comp_feedback": [{**PAIR, "obj": {**PAIR["obj"], "preference": preference}}],
            "meta_feedback_single/meta_feedback_singlewise_qa": [{**META, "meta_feedback_score": meta}],
        }
        return [row.prompt for row in data(["feedback", "comparison", "meta_feedback"], files)]

    assert prompts(1, "ansA", 1) == prompts(7, "ansC", 7)


def test_braces_in_a_record_are_left_as_they_are(data):
    [row] = data(["feedback"], {"qa_feedback_correction": [{**RATED, "generation": "{feedback_score} {x.__class__}"}]})
    assert "### Answer:\n{feedback_score} {x.__class__}\n" in row.question


def test_prompts_are_read_and_not_run(tmp_path):
    path = tmp_path / "prompts.py"
    path.write_text(
        f"import os\nos.remove({str(path)!r})\na = 'x' 'y'\nb = {{'k': [a, 1]}}\nc = a.upper()\nd, e = 1, 2\n"
    )
    assert constants_of(path) == {"a": "xy", "b": {"k": ["xy", 1]}}
    assert path.exists()


RATING = Row(
    id="one", task="t", kind="critique", messages=[Message(role="user", content="?")], answer="5", verifiers=["rating"]
)
OUT_OF_TEN = RATING.model_copy(update={"meta": {"scale": [1, 10], "label": "Score"}, "answer": "8"})


@pytest.mark.parametrize(
    ("text", "ours", "published"),
    [
        ("Decision: 5", "5", "5.0"),
        ("**Decision: 5**", "5", None),
        ("Decision: **6**\nbecause 2 of 3", "6", "3"),  # the last number is taken for it
        ("Decision: 5.5.", "5.5", None),
        ("Decision: 5/7", "5", "0.7142857142857143"),  # worked out as a fraction
        ("Decision: 5/10", None, "0.5"),
        ("Decision: 4-5", None, "-1"),
        ("Decision: 9", None, "9.0"),
        ("Decision: -3", None, "-3.0"),
        ("Decision: 3\nDecision: 6", "6", "3.0"),
        ("Decision: 6 out of 7", "6", "6.0"),
        ("My decision is 4.", "4", "4.0"),
        ("4", "4", "4"),
        ("**4**", "4", None),
        ("0", None, None),
        ("Decision: x", None, None),
        ("There are 3 flaws in 12 lines", None, "12"),
        ("Decision: nan", None, None),
        ("", None, None),
        ("Decision: __import__('os').abort()", None, None),
        ("9" * 5000, None, None),
        ("Decision: " * 100_000, None, None),
        ("(" * 1_000_000, None, None),
        ("1 " * 300_000, None, "1"),
        ("\0\u2028Decision:\u00a05", "5", "5"),
    ],
)
def test_ratings_as_read_by_us_and_by_the_repository(text, ours, published):
    assert (read(text, RATING), EXTRACTIONS["compat"](text, RATING)) == (ours, published)


def test_a_score_of_9_in_bold_is_9():
    text = "The critique is on par with the reference, 5 points above.\n\n**Score: 9**\n\nIt found 5 of 5.0"
    assert read(text, OUT_OF_TEN) == "9"
    assert EXTRACTIONS["compat"](text, OUT_OF_TEN) == "5.0"  # as upstream reported


def test_a_rating_is_scored_by_its_distance():
    assert [verify(RATING, f"Decision: {n}").score for n in (5, 2, 1, 7)] == [1.0, 0.5, 1 - 4 / 6, 1 - 2 / 6]
    assert verify(RATING, "Decision: 8").score is None


def test_the_last_number_is_arithmetic_at_most():
    assert last_number("a=3*(2+1) b") == 9 and last_number("x 0 5/0 y") is None
    assert last_number("7 abs(-2) 2**99 [3] 1e400") == 7 and last_number("-(-4)") == 4


@pytest.mark.parametrize(
    ("label", "as_given", "swapped", "ours", "published"),
    [
        (FIRST, FIRST, FIRST, True, True),
        (SECOND, SECOND, SECOND, True, True),
        (FIRST, FIRST, SECOND, False, False),  # the same letter twice
        (FIRST, SECOND, SECOND, False, False),
        (TIE, TIE, TIE, True, False),  # C and C are the same letter
        (TIE, TIE, FIRST, False, True),
        (FIRST, FIRST, TIE, False, True),
        (FIRST, TIE, FIRST, False, False),
        (FIRST, FIRST, None, False, False),
        (FIRST, None, FIRST, False, False),
        (TIE, None, None, False, False),
    ],
)
def test_when_a_pair_is_judged_rightly(label, as_given, swapped, ours, published):
    judged = (label, as_given, swapped)
    assert (pair_is_right(judged, False), pair_is_right(judged, True)) == (ours, published)


def test_overall_is_the_mean_after_moving_the_correlations():
    assert isclose(overall(63.54, 57.33, 69.67, 62.90), 72.555)
    assert overall(-100, 0, 0, -100) == 0 and overall(100, 100, 100, 100) == 100


def test_comparison_counts_pairs_and_ties_by_our_rule_or_the_published(data):
    records = [PAIR, {**PAIR, "question": "b", "obj": {**PAIR["obj"], "preference": "ansC"}}, {**PAIR, "question": "c"}]
    rows = data(["comparison"], {"qa_comp_feedback": records})
    said = ["Decision: A", "Decision: B", "Decision: C", "Decision: C", "Decision: A", "Decision: A"]
    answers = [answered(row, text) for row, text in zip(rows, said, strict=True)]
    ours = metrics(Settings(type="criticeval"), answers)
    published = metrics(Settings(type="criticeval", extraction="compat"), answers)
    assert isclose(ours["comparison"].value, 100 * 2 / 3) and isclose(published["comparison"].value, 100 / 3)
    assert isclose(ours["comparison, swap consistency"].value, 2 / 3) and ours["comparison"].n == 3
    assert isclose(ours["comparison, first shown chosen"].value, 3 / 4)
    assert scores(Settings(type="criticeval"), answers) == {
        "criticeval/comparison": {
            "criticeval/comparison/qa/0/given": 1.0,
            "criticeval/comparison/qa/1/given": 1.0,
            "criticeval/comparison/qa/2/given": 0.0,
        }
    }


def test_feedback_is_a_rank_correlation_in_which_silence_stands_in_the_middle(data):
    records = [{**RATED, "question": f"{n}?", "feedback_score": n} for n in (1, 2, 3, 4)]
    rows = data(["feedback"], {"qa_feedback_correction": records})
    said = ["Decision: 1", "Decision: 2", "Decision: 3", "I would rather not."]
    answers = [answered(row, text) for row, text in zip(rows, said, strict=True)]
    found = metrics(Settings(type="criticeval"), answers)
    assert isclose(found["feedback"].value, 100 * 2 / 10**0.5) and not found["feedback"].percent
    assert found["feedback"].low <= found["feedback"].value <= found["feedback"].high
    assert set(found) == {"feedback"}  # no overall score without the other three
    assert scores(Settings(type="criticeval"), answers)["criticeval/feedback"]["criticeval/feedback/qa/3"] == 0.0


def test_corrections_are_checked_and_every_domain_weighs_alike(data):
    code = {"question": "def twice(x):", "generation": "?", "exec_rest": "error", "data_source": "mbpp"}
    code["unit_test"] = "\nassert twice(2) == 4"
    humaneval = {**code, "data_source": "humaneval", "unit_test": "\ndef check(f):\n    assert f(3) == 6"}
    files = {
        "math_cot_feedback_correction": [MATH, {**MATH, "question": "41 + 1?"}, {**MATH, "question": "43 - 1?"}],
        "code_exec_feedback_correction": [code, humaneval],
    }
    rows = data(["correction"], files)
    program = "```python\ndef helper(x):\n    return x\n\ndef twice(x):\n    return helper(x) + x\n```"
    said = ["So it is 42.", "It is 41.", "The answer is 42.0", f"Here:\n{program}\nGood luck.", program]
    answers = [answered(row, text) for row, text in zip(rows, said, strict=True)]
    assert [one.score for one in answers] == [1, 0, 1, 1, 1]
    found = metrics(Settings(type="criticeval"), answers)["correction"]
    assert isclose(found.value, 100 * (2 / 3 + 2 / 2) / 2) and found.n == 5


def test_a_program_of_thought_returns_the_answer(data):
    [row] = data(["correction"], {"math_pot_feedback_correction": [MATH]})
    right = "```python\nclass Solution:\n    def solution(self):\n        return sqrt(42 ** 2)\n```"
    for text, score in {
        right: 1.0,
        right.replace("42", "41"): 0.0,
        "```\nprint(42)\n```": 0.0,
        "```python\nimport os\nos._exit(0)\n```": 0.0,
        "It is 42.": None,
        "": None,
    }.items():
        assert verify(row, text).score == score
    assert verify(row, right.replace("python", "py")).score == 1.0
    assert verify(row, right.replace("python", "py"), "compat").score is None  # a fence, but no Python one
    assert verify(row, right, "compat").score == 1.0


def test_all_four_dimensions_make_the_overall_score(data):
    files = {
        "qa_feedback_correction": [{**RATED, "question": f"{n}?", "feedback_score": n} for n in (1, 4, 6)],
        "qa_comp_feedback": [PAIR],
        "math_cot_feedback_correction": [MATH],
        "meta_feedback_single/meta_feedback_singlewise_qa": [
            {**META, "question": f"{n}?", "meta_feedback_score": n} for n in (2, 5)
        ],
    }
    rows = data(
        ["feedback", "comparison", "correction", "meta_feedback"], {**files, "math_cot_feedback_correction": []}
    )
    corrections = data(["correction"], files)
    answers = []
    for row in [*rows, *corrections]:
        label = row.meta.get("label", "Decision")
        text = f"{label}: {row.answer}" if row.task != "criticeval/correction" else "41"
        answers.append(answered(row, text))
    found = metrics(Settings(type="criticeval"), answers)
    assert [round(found[name].value, 9) for name in ("feedback", "comparison", "correction", "meta_feedback")] == [
        100,
        100,
        0,
        100,
    ]
    assert isclose(found["overall"].value, 75) and found["overall"].n == 3 + 1 + 1 + 2
    assert metrics(Settings(type="criticeval"), []) == {}


@pytest.mark.parametrize(
    ("dimension", "name", "records", "problem"),
    [
        ("feedback", "qa_feedback_correction", [{**RATED, "feedback_score": None}], "set split: dev"),
        (
            "feedback",
            "qa_feedback_correction",
            [{**RATED, "feedback_score": "good"}],
            "'good', not a number from 1 to 7",
        ),
        ("feedback", "qa_feedback_correction", [{**RATED, "feedback_score": 8}], "8, not a number from 1 to 7"),
        ("feedback", "qa_feedback_correction", [{**RATED, "feedback_score": float("nan")}], "nan, not a number"),
        ("feedback", "qa_feedback_correction", [{"question": "?", "feedback_score": 1}], "has no 'generation', which"),
        ("feedback", "chat_feedback_correction", [RATED], "no feedback prompt for chat"),
        ("feedback", "qa_feedback_correction", "[{", "not valid JSON"),
        ("feedback", "qa_feedback_correction", '["a"]', "no JSON object"),
        ("comparison", "qa_comp_feedback", [{"question": "?"}], "has no 'preference'"),
        (
            "comparison",
            "qa_comp_feedback",
            [{**PAIR, "obj": {**PAIR["obj"], "preference": "both"}}],
            "does not end in A",
        ),
        ("comparison", "qa_comp_feedback", [{**PAIR, "obj": {"preference": "ansB"}}], "has no 'generation_a'"),
        ("meta_feedback", "meta_feedback_single/meta_feedback_singlewise_qa", [{"question": "?"}], "annotated_scores"),
        ("correction", "math_cot_feedback_correction", [{**MATH, "ground_truth_answer": "none"}], "holds no number"),
        ("correction", "code_exec_feedback_correction", [{**MATH, "unit_test": "assert ("}], "the tests are no Python"),
        ("correction", "code_exec_feedback_correction", [MATH], "has no 'unit_test'"),
        (
            "correction",
            "code_exec_feedback_correction",
            [{**MATH, "unit_test": "", "data_source": "humaneval"}],
            "has a function to test",
        ),
    ],
)
def test_a_damaged_record_is_one_sentence_that_names_the_file(data, dimension, name, records, problem):
    with pytest.raises(UserError) as error:
        data([dimension], {name: records})
    assert problem in str(error.value) and "\n" not in str(error.value)
    assert name in str(error.value) or "prompts.py" in str(error.value)


@pytest.mark.parametrize("text", ["def (", "", "prompts = load()", "prompts = {'correction': {}}"])
def test_a_damaged_prompt_file_is_one_sentence(data, tmp_path, text):
    (tmp_path / "criticeval" / "inference" / "utils" / "prompts.py").write_text(text)
    with pytest.raises(UserError, match="prompts.py: no .*fetch"):
        data(["feedback"], {"qa_feedback_correction": [RATED]})


def test_without_the_items_it_says_that_they_are_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        items(Settings(type="criticeval"), None)
