"""The letter of an option: what is announced as the answer, else a letter on its own."""

import re

from data_recipes.row import Row

_ANNOUNCED = re.compile(r"\b(?:answer|option|choice)\b\W{0,6}(?:is\b|:|=)?\W{0,6}\(?([A-Z])\b(?![\w'’])", re.I)
_BOXED = re.compile(r"\\boxed\{\W*([A-Z])\W*\}")
_ALONE = re.compile(r"^[^\w\n]{0,20}([A-Z])\b(?:[).:]|[^\w\n]*$)", re.M)


def read(completion: str, row: Row) -> str | None:
    """Return the last boxed letter, else the last announced one ("the answer is (B)"), else one at a line's head."""
    for pattern in (_BOXED, _ANNOUNCED, _ALONE):
        found = [letter for letter in pattern.findall(completion) if letter.isupper()]
        if found:
            return found[-1]
    return None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where it is the right option's letter, else 0.0."""
    return float(answer == row.answer)
