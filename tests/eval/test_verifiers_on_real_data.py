"""The number verifier against 5,276 labelled solutions of GSM8K's test questions, written by four models."""

import os
from pathlib import Path

import pytest

from data_recipes.files import read_jsonl
from data_recipes.row import Message, Row
from eval.verifiers import verify

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
