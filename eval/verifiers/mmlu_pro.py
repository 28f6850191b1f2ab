r"""MMLU-Pro's letter, read as its repository reads it (TIGER-AI-Lab/MMLU-Pro, `extract_answer` and its fall-backs).

Three patterns are tried in turn: ``answer is \(?([A-J])\)?`` (the first match), ``.*[aA]nswer:\s*([A-J])`` and
``\b[A-J]\b(?!.*\b[A-J]\b)`` with DOTALL. As they stand the second and the third take quadratic time on long lines and
long texts; what is here takes linear time and reads the same letters, which tests hold it to.

==========  =====================================================================================================
L1          the first pattern alone, as lm-evaluation-harness does
L2          the first two
L3          all three: what the repository's scripts do and its `compute_accuracy.py` calls level 2; the default
L1-last ..  the same with the last match of each pattern instead of the first (`evaluate_from_apiX.py`)
api         ``**`` deleted, then L3 (`evaluate_from_api.py`); ``api-last``: then L3-last
direct      L1, else a letter that the completion begins with, else L2: for answers without reasoning
==========  =====================================================================================================
"""

import re
from collections.abc import Callable

from data_recipes.row import Row

LETTERS = "ABCDEFGHIJ"
STOPS = tuple(f"answer is {bracket}{letter}" for bracket in ("", "(") for letter in LETTERS)
EARLY = ("", "L1", "L2", "L3", "api", "direct")

_SAID = re.compile(r"answer is \(?([A-J])")
_LABELLED = re.compile(r"[aA]nswer:(?=\s*([A-J]))")
_LAST_ALONE = re.compile(r".*\b([A-J])\b", re.DOTALL)
_HEAD = re.compile(r"\W*+([A-J])(?:[).:,*\n]|\Z)")


def _said(text: str, last: bool) -> str | None:
    if last:
        return next(reversed(_SAID.findall(text)), None)
    found = _SAID.search(text)
    return found and found[1]


def _labelled(text: str, last: bool) -> str | None:
    """Return the letter after the last ``answer:`` of the first line with one; with `last`, of the last such match.

    The pattern's ``.*`` stays on a line, its white space may leave it. A match goes on from where the one before ended.
    """
    letter, start = None, 0
    while found := _LABELLED.search(text, start):
        end = text.find("\n", found.start())
        for other in _LABELLED.finditer(text, found.end()):
            if other.start() > end >= 0:
                break
            found = other
        letter, start = found[1], found.end(1)
        if not last:
            break
    return letter


def _alone(text: str) -> str | None:
    found = _LAST_ALONE.match(text)  # greedy: begins at the end and walks back
    return found and found[1]


def _extraction(levels: int, last: bool = False, bold: bool = True) -> Callable[[str, Row], str | None]:
    def extract(completion: str, row: Row) -> str | None:
        text = completion if bold else completion.replace("**", "")
        letter = _said(text, last)
        if letter is None and levels > 1:
            letter = _labelled(text, last)
        if letter is None and levels > 2:
            letter = _alone(text)
        return letter

    return extract


def _direct(completion: str, row: Row) -> str | None:
    head = _HEAD.match(completion)
    return _said(completion, last=False) or (head[1] if head else _labelled(completion, last=False))


EXTRACTIONS = {
    **{f"L{levels}": _extraction(levels) for levels in (1, 2, 3)},
    **{f"L{levels}-last": _extraction(levels, last=True) for levels in (1, 2, 3)},
    "api": _extraction(3, bold=False),
    "api-last": _extraction(3, last=True, bold=False),
    "direct": _direct,
}


def read(completion: str, row: Row) -> str | None:
    """Return the letter that the official three steps find; None where none does."""
    return EXTRACTIONS["L3"](completion, row)


def score(answer: str, row: Row) -> float:
    """Return 1.0 where it is the right option's letter, else 0.0."""
    return float(answer == row.answer)
