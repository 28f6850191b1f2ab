"""Verifiers on the real sets: published labels are reproduced, and every gold answer is right however it is written.

The number verifier is held to 5,276 labelled solutions of GSM8K's test questions, written by four models.
"""

import json
import os
import re
from pathlib import Path

import pytest

from data_recipes.files import read_json, read_jsonl
from data_recipes.row import Message, Row
from eval.benchmarks import load_benchmark
from eval.mathematics import equal
from eval.protected import evaluation_sets
from eval.verifiers import load_verifier, verify
from eval.verifiers.math import boxed

pytestmark = pytest.mark.data


def test_the_published_labels_are_reproduced():
    questions = read_jsonl(Path(os.environ["WHETSTONE_DATA"]) / "gsm8k" / "example_model_solutions.jsonl")
    disagreements = []
    for number, question in enumerate(questions):
        gold = question["ground_truth"].rsplit("A:", 1)[-1].strip()
        turns = [Message(role="user", content=question["question"])]
        row = Row(id=str(number), task="gsm8k", kind="domain", messages=turns, answer=gold, verifiers=["number"])
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            labelled = question[model]
            if (verify(row, labelled["solution"]).score == 1.0) != labelled["is_correct"]:
                disagreements.append((gold, labelled["solution"]))
    assert len(questions) == 1319 and disagreements == []


def asked(name: str, **settings) -> list:
    testset = load_benchmark("testset")
    return testset.items(testset.Settings(type="testset", set=name, **settings), None)


def wrong(row: Row, *completions: str) -> list[tuple]:
    return [(row.id, row.answer, text) for text in completions if verify(row, text).score != 1.0]


def test_every_answer_of_math_equals_itself_and_no_other():
    rows = asked("math")
    golds = [load_verifier("math").gold(row) for row in rows]
    assert len(rows) == 5000 and [gold for gold in golds if equal(gold, gold) is not True] == []
    assert [gold for row, gold in zip(rows, golds, strict=True) for _ in wrong(row, row.target, f"${gold}$")] == []
    told = {row.meta["question"]: row for row in rows}
    math500 = read_jsonl(Path(os.environ["WHETSTONE_DATA"]) / "code_and_format" / "math500.jsonl")
    assert [one["unique_id"] for one in math500 if boxed(one["solution"]) != one["answer"]] == []
    boxes = [(told[one["problem"].strip()], f"So \\boxed{{{one['answer']}}}.") for one in math500]
    assert len(boxes) == 500 and [failed for row, text in boxes for failed in wrong(row, text)] == []
    assert [(a, b) for a, b in zip(golds[:600], golds[1:601], strict=True) if a != b and equal(a, b)] == []


def test_every_answer_of_math_is_right_in_other_spellings():
    ways = {
        "\\dfrac": lambda gold: gold.replace("\\frac", "\\dfrac"),
        "a/b": lambda gold: re.sub(r"(?<!\d)\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", gold),
        "no \\text": lambda gold: re.sub(r"\\text ?\{(.*?)\}", r"\1", gold),
        "no \\left": lambda gold: gold.replace("\\left", "").replace("\\right", ""),
        "full stop": lambda gold: f"{gold}.",
    }
    verifier, failed = load_verifier("math"), []
    for row in asked("math"):
        gold = verifier.gold(row)
        spellings = {way(gold) for way in ways.values()}
        failed += [(gold, spelling) for spelling in sorted(spellings) if not verifier.score(spelling, row)]
    assert len({gold for gold, _ in failed}) <= 3, failed


def test_every_answer_of_big_bench_hard_is_read_and_so_is_every_worked_example():
    rows = asked("bbh")
    assert len(rows) == 6511 and len({row.task for row in rows}) == 27
    missed = [wrong(r, r.answer, f"I see. So the answer is {r.answer}.", f"**{r.answer}**") for r in rows]
    assert [one for one in missed if one] == []
    item = next(one for one in asked("bbh", cot=True) if one.row.task == "bbh/word_sorting")
    assert item.row.question.startswith("Sort a list of words.\n\nQ: Sort the following words alphabetically: List: ")
    assert item.row.question.count("\n\nQ: ") == 4 and item.row.question.endswith("\nA: Let's think step by step.")
    examples = 0
    for path in sorted((Path(os.environ["WHETSTONE_DATA"]) / "bbh" / "cot-prompts").glob("*.txt")):
        for block in path.read_text().split("\n\nQ: ")[1:]:
            question, _, worked = block.partition("\nA: Let's think step by step.")
            gold = re.search(r"[Ss]o the answer is (.*?)\.?$", worked.strip())[1]
            turns = [Message(role="user", content=question)]
            row = Row(id="x", task="bbh", kind="domain", messages=turns, answer=gold, verifiers=["bbh"])
            examples += not wrong(row, worked)
    assert examples == 81


def test_every_answer_of_tatqa_is_right_as_a_list_in_any_order_and_in_a_sentence():
    rows = asked("tatqa") + asked("tatqa/spans")
    assert len(rows) == 3331
    missed = []
    for row in rows:
        if row.task == "tatqa":
            missed += wrong(row, row.target, row.answer, f"The answer is {row.answer}.", f"It is {row.answer}")
            continue
        spans = [span for span in json.loads(row.answer)["spans"] if span]
        missed += wrong(row, "; ".join(spans), "; ".join(reversed(spans)), "\n".join(f"- {span}" for span in spans))
        missed += wrong(row, " and ".join([", ".join(spans[:-1]), spans[-1]]) if len(spans) > 1 else spans[0])
    assert missed == []


def test_every_output_of_cruxeval_is_read_in_each_of_its_forms():
    rows = asked("cruxeval")
    assert len(rows) == 800
    forms = ("{}", "[ANSWER]{}[/ANSWER]", "assert f(1) == {}", "The output is {}.", "```python\n{}\n```")
    assert [one for row in rows for one in wrong(row, *(form.format(row.answer) for form in forms))] == []


def test_every_instruction_of_ifeval_is_known_and_every_label_of_pubmedqa_read():
    rows = asked("ifeval")
    verifier = load_verifier("constraints")
    assert len(rows) == 541 and sum(len(verifier.instructions_of(row)) for row in rows) == 834
    assert all(verify(row, row.question).score in (0.0, 1.0) for row in rows)
    medical = asked("pubmedqa")
    assert len(medical) == 500 and {len(row.meta["options"]) for row in medical} == {3}
    assert [one for r in medical for one in wrong(r, r.answer, f"The answer is {r.answer}, as the study says.")] == []


def test_every_set_of_choices_has_options_and_what_is_left_unjudged_is_known():
    sets = evaluation_sets().tasks
    unjudged = {name for name, one in sets.items() if not one.verifiers} - {"humaneval", "mbpp"}
    assert unjudged == {
        "asdiv/words",
        "bigbench_mistake",
        "gsm8k_solutions",
        "llmbar",
        "realcritic",
        "truthfulqa",
    }
    for name in ("aqua", "medqa", "medmcqa", "mmlu_pro"):
        for row in asked(name, items=200):
            assert row.meta["gold_text"] in "\n".join(row.meta["options"])
            assert not wrong(row, f"The answer is ({row.answer}).")


def test_financial_sentiment_is_read_in_sentences():
    data = Path(os.environ["WHETSTONE_DATA"])
    lines = (data / "finance_sentiment" / "sent_valid.csv").read_text(encoding="utf-8").splitlines()[1:]
    labels = ["bearish", "bullish", "neutral"]
    for line in lines[::20]:
        if line[-2:-1] != ",":
            continue
        label = labels[int(line[-1])]
        turns = [Message(role="user", content=f"{line[:-2]}\nSentiment (bearish, neutral or bullish):")]
        row = Row(id="x", task="f", kind="domain", messages=turns, answer=label, verifiers=["label"])
        others = " nor ".join(other for other in labels if other != label)
        assert not wrong(row, label.title(), f"This is {label} news.", f"It is neither {others} but {label}.")


def test_the_prompts_of_multiple_choice_sets_are_read_from_the_published_files():
    sizes = {"gsm8k": 1319, "svamp": 1000, "asdiv": 2084, "mawps": 2065, "aqua": 508, "medqa": 1273, "medmcqa": 4183}
    assert {name: len(asked(name)) for name in sizes} == sizes
    questions = read_json(Path(os.environ["WHETSTONE_DATA"]) / "pubmedqa" / "test_ground_truth.json")
    assert len(questions) == 500
