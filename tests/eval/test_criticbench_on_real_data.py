"""CriticBench's published prompts: all 135 are read, and what their own examples answer is read and judged right.

Its items are on the hub only; the rows here are made of the labelled solutions of GSM8K in the items' layout.
"""

import json
import os
import re
from pathlib import Path

import pytest

from data_recipes.files import read_jsonl
from data_recipes.row import Message, Row
from eval.benchmarks import Answered
from eval.benchmarks.criticbench import SOURCES, Settings, follow_up, items, metrics
from eval.criticbench_prompts import FILES, load_prompt
from eval.verifiers import verify
from eval.verifiers.criticbench import CODE_SOURCES, EXTRACTIONS, read

pytestmark = pytest.mark.data

BLANKS = {
    "generation": {"question"},
    "critique": {"question", "solution"},
    "correction": {"question", "solution", "critique"},
}


@pytest.fixture(scope="module")
def prompts():
    return Path(os.environ["WHETSTONE_DATA"]) / "criticbench_prompts" / "src" / "prompt"


def row_of(source, stage, answer_format, answers=("",)):
    meta = {"stage": stage, "source": source, "answer_format": answer_format, "answers": list(answers)}
    turns = [Message(role="user", content="?")]
    return Row(id="x", task="t", kind="domain", messages=turns, answer=answers[0], verifiers=["criticbench"], meta=meta)


def test_all_135_prompts_are_read_and_have_the_blanks_of_their_stage(prompts):
    read_files = set()
    for source in SOURCES:
        for style in FILES:
            for stage, blanks in BLANKS.items():
                prompt = load_prompt(stage, source, style)
                found = re.findall(r"\{(question|solution|critique)\}", prompt.question)
                # the code to be judged holds HumanEval's question already
                expected = blanks - {"question"} if source == "HumanEval" and stage != "generation" else blanks
                assert set(found) == expected and len(found) == len(expected), (stage, source, style)
                assert prompt.answer_format
                assert prompt.num_examples >= 3 if style == "fs" or stage == "generation" else prompt.num_examples == 0
                read_files.add((stage, source, prompt))
    assert len(list(prompts.rglob("*.txt"))) == 135
    assert len(read_files) == 15 * (1 + 5 + 3)


def test_a_prompt_with_all_examples_is_the_file_without_its_headings(prompts):
    for path in prompts.rglob("few_shot.txt"):
        stage, source = path.parent.parent.name, path.parent.name
        text = path.read_text().split("\n# ########## #\n#Answer Format#")[0]
        for heading in ("#instruction#\n", "# ########## #\n#Example#\n", "# ########## #\n#Question#\n"):
            text = text.replace(heading, "")
        same = {name: f"{{{name}}}" for name in ("question", "solution", "critique")}
        assert load_prompt(stage, source, "fs").text(same) == text.strip(), path


def test_dropping_examples_keeps_the_first_ones_and_the_question():
    for source in SOURCES:
        for stage, blanks in BLANKS.items():
            prompt = load_prompt(stage, source, "fs")
            values = {name: f"<{name}>" for name in blanks}
            examples = [chunk.strip() for chunk in prompt.chunks if chunk.strip()]
            for kept in range(len(examples) + 1):
                text = prompt.text(values, kept)
                assert [one in text for one in examples] == [number < kept for number in range(len(examples))]
                assert text.startswith(prompt.instruction.strip()) and text.endswith(prompt.text(values)[-10:])
                assert prompt.fitting(values, len, len(text)) == (text, kept)


def test_the_verdict_of_every_worked_critique_is_read():
    seen = {"correct": 0, "wrong": 0}
    for source in SOURCES:
        prompt = load_prompt("critique", source, "fs")
        row = row_of(source, "critique", prompt.answer_format)
        for chunk in filter(str.strip, prompt.chunks):
            critique = chunk.rpartition("Verdict:")[2]
            said = re.findall(r"\[\[(\w+)\]\]", critique)[-1]
            assert read(critique, row) == EXTRACTIONS["compat"](critique, row) == said
            seen[said] += 1
    assert sum(seen.values()) == 15 * 4 and min(seen.values()) > 20


def test_the_answer_of_every_worked_correction_and_generation_is_read_and_right():
    judged = 0
    for source in SOURCES:
        for stage, mark in (("correction", "Improved Answer:"), ("generation", "Answer:")):
            prompt = load_prompt(stage, source, "fs")
            for chunk in filter(str.strip, prompt.chunks) if source not in CODE_SOURCES else ():
                written = chunk.rpartition(mark)[2].strip()
                if stage == "correction":
                    right = written[written.rindex("[[") + 2 : written.rindex("]]")]
                else:
                    right = written.rpartition("he answer is")[2].strip(" :.()$")
                verdict = verify(row_of(source, stage, prompt.answer_format, [right]), written)
                assert verdict.score == 1.0, (source, stage, written, verdict, right)
                judged += 1
    assert judged == 13 * 4 + 61


def test_labelled_solutions_in_the_items_layout_are_asked_criticised_and_corrected(tmp_path, monkeypatch, prompts):
    data = Path(os.environ["WHETSTONE_DATA"])
    questions = read_jsonl(data / "gsm8k" / "example_model_solutions.jsonl")[:200]
    records = [
        {
            "id": number,
            "question": one["question"],
            "question_source": "GSM8K",
            "question_type": "math",
            "response": one["175b_verification"]["solution"],
            "response_label": one["175b_verification"]["is_correct"],
            "answer": [one["ground_truth"].rsplit("A:", 1)[-1].strip()],
        }
        for number, one in enumerate(questions)
    ]
    (tmp_path / "criticbench_prompts").symlink_to(data / "criticbench_prompts")
    (tmp_path / "criticbench").mkdir()
    (tmp_path / "criticbench" / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))

    settings = Settings(type="criticbench")

    def answer(row, text):
        verdict = verify(row, text)
        return Answered(row, 0, 0, text, "stop", verdict, verdict.score or 0.0)

    asked = [item.row for item in items(settings, None)]
    # whoever writes the given responses and finds all of them wrong
    first = [answer(r, r.meta["response"] if r.meta["stage"] == "generation" else "[[wrong]]") for r in asked]
    corrections = [answer(item.row, f"It is [[{item.row.answer}]].") for item in follow_up(settings, first)]
    found = metrics(settings, first + corrections)
    right = sum(record["response_label"] for record in records)
    wrong = len(records) - right
    assert len(asked) == 400 and len(corrections) == 200
    assert found["generation"].value == right / len(records)  # the published labels, by CriticBench's own reading
    assert found["critique F1"].value == 2 * wrong / (2 * wrong + right)
    assert found["correction"].value == found["correction, mended"].value == 1.0
    # MATH and GSM8K's longest prompts are below the context of 4,096 tokens less 512
    assert max(len(row.question) for row in asked) < 4 * (4096 - 512)
