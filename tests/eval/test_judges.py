"""Verifiers in processes of their own: what hangs, raises, dies or returns no number spoils only its own sample."""

import os
import time

import pytest

from data_recipes.row import Message, Row
from eval.judges import Judges

OWN = """
import os, time

def read(completion, row):
    print("a verifier that talks")
    return completion

def score(answer, row):
    if answer == "hang":
        while True:
            time.sleep(1)
    if answer == "raise":
        raise ZeroDivisionError("by\\nzero")
    if answer == "exit":
        raise SystemExit(3)
    if answer == "die":
        os._exit(7)
    if answer == "nan":
        return float("nan")
    if answer == "text":
        return "high"
    return float(answer)
"""


@pytest.fixture
def own_verifier(tmp_path, monkeypatch):
    (tmp_path / "moods").mkdir()
    (tmp_path / "moods" / "moody.py").write_text(OWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return "moods.moody"


def a_row(verifier: str) -> Row:
    turns = [Message(role="user", content="?")]
    return Row(id="1", task="t", kind="domain", messages=turns, answer="5", verifiers=[verifier])


@pytest.mark.parametrize("workers", [1, 3])
def test_every_misbehaviour_is_named_and_the_others_are_judged(own_verifier, workers):
    judges = Judges([own_verifier], workers, timeout=1.0)
    said = ["0.25", "hang", "1", "raise", "nan", "0.5", "die", "text", "exit", "100"]
    start = time.monotonic()
    found = judges.judge([(a_row(own_verifier), text) for text in said])
    assert time.monotonic() - start < 60
    scores = [one.verdict.score for one in found]
    assert scores == [0.25, None, 1.0, None, None, 0.5, None, None, None, 100.0]
    problems = {text: one.problem for text, one in zip(said, found, strict=True) if one.problem}
    assert problems == {
        "hang": "no answer in 1 s",
        "raise": "ZeroDivisionError: by zero",
        "nan": "returned nan, which is no number",
        "die": "its process died (exit code 7)",
        "text": "returned 'high', which is no number",
        "exit": "SystemExit: 3",
    }
    assert judges.judge([(a_row(own_verifier), "2")])[0].verdict.score == 2.0, "they can be asked again"
    judges.close()


def test_they_judge_as_verify_does_and_unparsed_is_no_problem():
    judges = Judges(["number"], 1, timeout=30.0)
    right, wrong, unparsed = judges.judge([(a_row("number"), text) for text in ("It is 5.", "6", "no idea \u2028 ☃")])
    assert (right.verdict.score, right.verdict.answer) == (1.0, "5") and wrong.verdict.score == 0.0
    assert unparsed.verdict.score is None and unparsed.problem is None
    judges.close()


def test_a_long_completion_passes_through():
    judges = Judges(["number"], 2, timeout=30.0)
    found = judges.judge([(a_row("number"), "word " * 400_000 + "5")] * 3)
    assert [one.verdict.score for one in found] == [1.0] * 3
    judges.close()


def test_nothing_to_judge_starts_nothing():
    assert Judges(["number"], 2, timeout=1.0).judge([]) == []
