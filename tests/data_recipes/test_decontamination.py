"""A protected question is found wherever it hides, reworded too, and nothing else is taken for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_recipes.decontamination import Protected
from data_recipes.row import Message, Row

GSM = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did"
    " Natalia sell altogether in April and May?"
)


def row(asked: str, answer: str = "1", row_id: str = "r", **meta) -> Row:
    turns = [Message(role="user", content=asked), Message(role="assistant", content=answer)]
    return Row(id=row_id, task="t", kind="domain", messages=turns, meta=meta)


def found(item: Row, asked: Row, **kwargs) -> str | None:
    match = Protected([item]).find(asked, **kwargs)
    return match and match.how


@pytest.mark.parametrize(
    ("protected", "training", "expected"),
    [
        ("What is 3 + 5?", "Here is a question.\n\nQuestion: what is  3 + 5?\n\nResponse: 9", "exact"),
        ("What is 3 + 5?", "What is 13 + 5?", None),
        ("What is 3 + 5?", "What is 3 - 5?", None),
        ("What is 3 + 5", "What is 3 + 5?0", "exact"),
        ("What is 3 + 5", "What is 3 + 55?", None),
        ("What is 3 + 5", "What is 3 + 5.5?", "exact"),
        ("Find x.", "Now find x. It is easy.", None),  # too little to be told by
        ("Find x.", "find  X.", "exact"),
        ("[ { ] }", "[ { ] } [", None),
        ("What do you do?", "A dog barks at you. What do you do? Run.", None),
        (GSM, "Solve: " + GSM.upper(), "exact"),
        (GSM, GSM.replace(",", "").replace("?", ""), "reworded"),
        (GSM, GSM.replace("altogether", "in total"), "reworded"),
        (GSM, "How many clips did Natalia sell altogether in April and May? " + GSM.split(". ")[0], "reworded"),
        (GSM, GSM.replace("48", "64"), None),  # another question of the same form
    ],
)
def test_found_word_for_word_and_reworded(protected, training, expected):
    assert found(row(protected), row(training, "none")) == expected
    assert found(row(protected), row("Guess what I ask.", training)) == (
        None if training.startswith("find") else expected
    ), "in the answer too"


def test_the_criticised_question_counts_as_the_protected_one():
    critique = row("Judge this: What is 2 + 2? 5", question="What is 2 + 2?")
    assert found(critique, row("what is 2 + 2?")) == "exact"


def test_a_reference_solution_is_found_too():
    solution = (
        "The lighthouse keeper walks 14 steps up the winding stairs and counts each green lantern twice before noon,"
        " which comes to 28 lanterns, so he needs 28 wicks and spends seven silver coins on oil."
    )
    assert found(row("How many wicks?", solution), row("Tell me a story.", f"Well. {solution}")) == "solution"


def test_a_short_stem_is_no_question_without_its_options():
    item = row("Which of the following is correct?", options=["The moon is a star", "Water is wet today", "Ice is hot"])
    assert found(item, row("Which of the following is correct? (A) 5 apples (B) 7 pears", "A")) is None
    assert (
        found(item, row("Which of the following is correct? (A) Water is wet today (B) The moon is a star")) == "exact"
    )


def test_exact_alone_and_exemptions():
    reworded = row(GSM.replace("altogether", "in total"))
    assert found(row(GSM), reworded, near=False) is None
    assert found(row(GSM, row_id="a"), row(GSM), exempt=lambda item: item == "a") is None
    assert Protected([row(GSM)], near=False).find(reworded) is None


def test_templates_do_not_make_copies_of_one_another():
    """Fifty held-out questions of one form: others of the form are not copies of them."""

    def asked(a, b, c):
        return f"Tom has {a} red marbles, buys {b} more at the shop and loses {c} on the way home. How many are left?"

    index = Protected([row(asked(n, n + 3, 2), row_id=f"h{n}") for n in range(20, 70)])
    assert not any(index.find(row(asked(n, n + 4, 1))) for n in range(100, 200))
    assert index.find(row(f"Question: {asked(33, 36, 2)}")).item == "h33"


FINDS = """
from data_recipes.decontamination import Protected
from data_recipes.row import Message, Row

def row(name, text):
    turns = [Message(role="user", content=name), Message(role="assistant", content=text)]
    return Row(id=name, task="t", kind="domain", messages=turns)

def word(n):
    return "".join(chr(97 + n // 26**place % 26) for place in range(3))

texts = [" ".join(word((n * 7 + place * (1 + n % 3)) % 61) for place in range(30)) for n in range(20)]
index = Protected([row(f"item {n}", texts[n]) for n in range(20)])
print([index.find(row(f"asked {n}", f"{texts[n]} and {texts[n - 1]}")) for n in range(20)])  # two as good
"""


def test_the_same_is_found_whatever_order_sets_have_in_a_process():
    said = {
        subprocess.run(
            [sys.executable, "-c", FINDS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1 and "solution" in said.pop()
