"""The outputs of 8 models, scored as the published scripts score them: every figure to the digit it was printed with.

Labels are the ``answer`` in the output files: those of the release that each model was asked. They are May 2024's in
five files, today's in two, and in one three of the 33 labels that changed are today's. Options are of the same release:
seven items have more of them today than in May 2024.
"""

import csv
import gzip
import json
import os
import re
from pathlib import Path

import pytest

from data_recipes.files import read_json, read_jsonl
from eval.benchmarks.mmlu_pro import Settings, items
from eval.importers.mmlu_pro import letters, official_figures, read_outputs
from eval.mmlu_pro import INSTRUCTIONS, Question, block, read_split, style_of
from eval.verifiers.mmlu_pro import EARLY, EXTRACTIONS, LETTERS, STOPS, read
from tests.benchmarks.extraction import in_turn, verbatim

pytestmark = pytest.mark.data

# n, then COLUMNS; what is L3 here is called L2 in the repository
PUBLISHED = {
    "gemini-1.5-pro-002": "12020 70.25 70.26 70.22 70.24 0.2 70.25 70.25 0.1 71.65",
    "Meta-Llama-3-70B": "12032 52.01 52.73 52.01 52.72 6.8 52.38 52.78 3.9 54.55",
    "jamba-1.5-large": "12032 49.46 49.52 48.32 48.55 2.4 49.46 49.53 0.5 52.70",
    "Meta-Llama-3_1-8B-Instruct": "12032 44.19 44.19 43.36 44.10 8.7 43.58 44.24 5.8 45.42",
    "Mistral-7B-Instruct-v0.2": "12032 28.76 30.77 28.76 30.43 18.6 30.18 30.98 8.9 32.50",
    "Qwen1.5-7B-Chat": "12032 26.44 29.02 26.44 28.85 23.3 30.35 30.85 5.1 30.12",
    "Yi-6B": "12032 24.97 26.37 24.97 26.39 13.4 25.41 26.25 9.5 28.09",
    "Llama-2-7b-hf": "12032 18.34 20.13 18.34 20.06 17.1 18.75 20.27 13.2 20.99",
}
COLUMNS = (
    *("stored, wrong", "stored, expected", "L1, wrong", "L1, guess-10", "L1, unparsed"),
    *("L3, wrong", "L3, guess-10", "L3, unparsed", "stored, expected, macro"),
)
ASKED_TODAYS = {"gemini-1.5-pro-002", "jamba-1.5-large"}
SAME_GUESSES = {"Meta-Llama-3-70B", "Mistral-7B-Instruct-v0.2", "Qwen1.5-7B-Chat", "Yi-6B", "Llama-2-7b-hf"}
SPARED = {
    "gemini-1.5-pro-002": 16.8,
    "Meta-Llama-3-70B": 67.7,
    "jamba-1.5-large": 5.3,
    "Meta-Llama-3_1-8B-Instruct": 1.1,
    "Mistral-7B-Instruct-v0.2": 2.3,
    "Qwen1.5-7B-Chat": 2.7,
    "Yi-6B": 1.1,
    "Llama-2-7b-hf": 1.1,
}
"""Percent of each file's characters that stand after the first stop."""


def folder() -> Path:
    return Path(os.environ["WHETSTONE_DATA"]) / "mmlu_pro"


@pytest.fixture(scope="module")
def outputs():
    """The outputs of every model, with the options it was asked."""
    rows = [item.row for item in items(Settings(type="mmlu_pro", num_shots=0), None)]
    old = {str(one["question_id"]): one["changed"] for one in read_json(folder() / "revision_changes.json")}
    first = [row.model_copy(deep=True) if "options" in old.get(row.meta["question_id"], {}) else row for row in rows]
    for row in first:
        if "options" in old.get(row.meta["question_id"], {}):
            row.meta["options"] = old[row.meta["question_id"]]["options"]["2024-05"]
    made = {}
    for name in PUBLISHED:
        known = rows if name in ASKED_TODAYS else first
        made[name], passed_over = read_outputs(folder() / f"outputs/{name}.jsonl.gz", known)
        assert not passed_over
    return made


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_table_is_reproduced(outputs, name):
    n, *printed = PUBLISHED[name].split()
    figures = official_figures(outputs[name])
    assert len(outputs[name]) == int(n) and set(figures) == set(COLUMNS)
    for column, number in zip(COLUMNS, printed, strict=True):
        if "guess" in column and name not in SAME_GUESSES:  # their order in the original file is not known
            assert abs(figures[column] - float(number)) < 0.3, column
        else:
            assert f"{figures[column]:.{len(number.split('.')[1])}f}" == number, column


def test_the_labels_are_those_of_the_release_that_was_asked(outputs):
    with gzip.open(folder() / "predictions_matrix.csv.gz", "rt") as file:
        first = {line["question_id"]: line["answer_2024_05"] for line in csv.DictReader(file)}
    today = {question.id: question.answer for question in read_split("test")}
    assert sum(first[number] != today[number] for number in today) == 33
    counted = {}
    for name, of_model in outputs.items():
        labels = {output.row.meta["question_id"]: output.row.answer for output in of_model}
        counted[name] = [sum(labels[number] != of[number] for number in labels) for of in (first, today)]
    early = dict.fromkeys(PUBLISHED, [0, 33])
    late = dict.fromkeys(ASKED_TODAYS, [33, 0])
    assert counted == {**early, **late, "Meta-Llama-3_1-8B-Instruct": [3, 30]}


@pytest.mark.parametrize("name", PUBLISHED)
def test_text_after_the_first_stop_changes_no_early_extraction(outputs, name):
    cut = []
    for output in outputs[name]:
        ends = [found + len(stop) for stop in STOPS if (found := output.completion.find(stop)) >= 0]
        cut.append(output._replace(completion=output.completion[: min(ends, default=len(output.completion))]))
    for extraction in EARLY:
        extract = EXTRACTIONS.get(extraction, read)
        assert [extract(o.completion, o.row) for o in cut] == [extract(o.completion, o.row) for o in outputs[name]]
    written = sum(len(output.completion) for output in outputs[name])
    spared = 1 - sum(len(output.completion) for output in cut) / written
    assert round(100 * spared, 1) == SPARED[name]


def test_the_last_match_is_another_letter_where_a_model_goes_on_to_new_questions(outputs):
    of_model = outputs["Meta-Llama-3-70B"]
    right = {}
    for name in ("L3", "L3-last"):
        read_letters = letters(of_model, name)
        right[name] = sum(o.row.answer == letter for o, letter in zip(of_model, read_letters, strict=True))
    assert [f"{100 * count / len(of_model):.2f}" for count in right.values()] == ["52.38", "27.90"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_official_patterns_read_the_same_letters_at_least_thirty_times_slower(outputs, name):
    texts = [output.completion for output in outputs[name]]
    measured = in_turn(texts, sample=100, budget=4)
    assert measured.same
    if measured.mean_length >= 300:
        assert measured.ratio >= 30, measured


def test_short_outputs_are_read_as_the_official_patterns_read_them(outputs):
    for of_model in outputs.values():
        texts = [output.completion for output in of_model if len(output.completion) < 300][:3000]
        for name, last in (("L3", False), ("L3-last", True)):
            assert [EXTRACTIONS[name](text, None) for text in texts] == [verbatim(text, last) for text in texts]


def test_the_default_prompts_are_built_from_the_published_instruction_and_examples():
    instruction = (folder() / "prompts/initial_prompt.txt").read_text()
    examples: dict[str, str] = {}
    for one in read_jsonl(folder() / "validation_cot.jsonl"):
        options = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, one["options"], strict=False))
        said = one["cot_content"].replace("A: Let's think step by step.", "Answer: Let's think step by step.")
        shown = f"Question:\n{one['question']}\nOptions:\n{options}{said}\n\n"
        examples[one["category"]] = examples.get(one["category"], "") + shown
    asked = {"none": {}, "official-local": {}}
    for compat, by_id in asked.items():
        settings = Settings(type="mmlu_pro", compat=compat, max_prompt_tokens=0)
        by_id |= {item.row.meta["question_id"]: item.row for item in items(settings, None)}
        assert len(by_id) == 12_032 and all(row.meta["num_shots"] == 5 for row in by_id.values())
    for path in sorted((folder() / "test").glob("*.jsonl")):
        for one in read_jsonl(path):
            head = instruction.replace("{$}", one["category"]) + "\n" + examples[one["category"]]
            for compat, strip in (("official-local", str), ("none", str.strip)):
                texts = zip(LETTERS, map(strip, one["options"]), strict=False)
                options = "".join(f"{letter}. {text}\n" for letter, text in texts)
                tail = f"Question:\n{one['question']}\nOptions:\n{options}Answer: Let's think step by step."
                assert asked[compat][str(one["question_id"])].question == head + tail


def test_the_styles_are_the_published_ones():
    text = (folder() / "prompts/tested_24_prompt_styles.txt").read_text()
    theirs = tuple(one.replace("{subject}", "{category}") for one in re.findall(r"(?m)^[1-4]\. (.*)$", text))
    assert theirs == INSTRUCTIONS
    shown = re.findall(r"example format:  \d\n\n(.*?)\n-{22}", text, re.DOTALL)
    question = re.match(r"Question: (.*)", shown[0])[1]
    options = tuple(re.findall(r"\([A-D]\) (.*)", shown[0]))
    example = Question("1", "physics", question, options, "D", "", "")
    made = [block(example, style_of(number, "cot")) + style_of(number, "cot").cue for number in range(1, 25)]
    assert len(options) == 4 and made == shown * 4
    begun = [style_of(number, "cot").instruction for number in range(1, 25)]
    assert begun == [f"{one}\n\n" for one in INSTRUCTIONS for _ in range(6)]


def test_the_right_options_that_began_with_a_space_no_longer_do():
    raw = read_split("test")
    shown = [question.prepared("none") for question in raw]
    right = [one.options[LETTERS.index(one.answer)] for one in raw]
    wrong = [text for one in raw for letter, text in zip(LETTERS, one.options, strict=False) if letter != one.answer]
    assert sum(text.startswith(" ") for text in right) == 470
    assert (sum(text.startswith(" ") for text in wrong), len(wrong)) == (5, 101_963)
    assert not any(text != text.strip() for one in shown for text in one.options)


def test_the_exact_duplicates_are_clusters():
    rows = [item.row for item in items(Settings(type="mmlu_pro", num_shots=0), None)]
    assert len({row.id for row in rows}) == 12_032 and len({row.meta["cluster"] for row in rows}) == 12_032 - 159
    assert len({row.task for row in rows}) == 14 and all(row.meta["gold_text"] for row in rows)


def test_the_files_are_read_under_the_names_and_in_the_layout_they_are_published_in(outputs, tmp_path):
    some = outputs["Yi-6B"][:50]
    for name in ("generated_text", "model_outputs"):
        records = [
            {
                "question_id": int(o.row.meta["question_id"]),
                **{key: o.row.meta[key] for key in ("question", "options", "category", "src")},
                "answer": o.row.answer,
                "pred": o.stored_pred,
                name: o.completion,
            }
            for o in some
        ]
        (tmp_path / "published.json").write_text(json.dumps([*records, "a stray string"]))
        again, passed_over = read_outputs(tmp_path / "published.json")
        assert sum(passed_over.values()) == 1
        assert [(o.row.id, o.completion, o.stored_pred) for o in again] == [
            (o.row.id, o.completion, o.stored_pred) for o in some
        ]
