"""A Python value written down (``[(4, 1), (2, 3)]``, ``'abc'``), as in CruxEval's output prediction: read, never run.

Equal are values that Python calls equal (``1`` and ``1.0``), however they are spelt.
"""

import ast
import re
import warnings

from data_recipes.row import Row

LONGEST = 2000
"""Characters of a value; CruxEval's longest has 50."""
_TAGGED = re.compile(r"\[ANSWER\]([^\[]*(?:\[(?!/ANSWER\])[^\[]*)*)(?:\[/ANSWER\]|$)")
_ANNOUNCED = re.compile(
    r"\banswer\b[^.\n:=]{0,40}(?:\bis\b|:)[ \t*]{0,8}|\boutput\b[ \t]{0,4}(?:\bis\b|:)[ \t*]{0,8}", re.I
)
_FENCE = re.compile(r"```\w*")
_TAIL = 10_000


def read(completion: str, row: Row) -> str | None:
    """Return the last value that Python can read: tagged ``[ANSWER]``, after ``==``, announced, or alone on a line."""
    tail = completion[-_TAIL:]
    tagged = _TAGGED.findall(tail)
    lines = [line.strip(" \t`*") for line in _FENCE.sub("\n", tagged[-1] if tagged else tail).splitlines()][-200:]
    for line in reversed(lines):
        if not line:
            continue
        announced = [match.end() for match in _ANNOUNCED.finditer(line)]
        for text in (
            line.rpartition("==")[2],
            line[announced[-1] :] if announced else "",
            line,
        ):
            text = text.strip(" \t`*")
            for written in (text, text.removesuffix(".")):
                if written and _value(written) is not None:
                    return written
    return None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the values are equal, else 0.0."""
    given, right = _value(answer), _value((row.answer or "").strip())
    try:
        return float(given is not None and right is not None and given[0] == right[0])
    except RecursionError:
        return 0.0


def _value(text: str) -> tuple[object] | None:
    if len(text) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string is a warning, and no matter of ours
            return (ast.literal_eval(text),)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError):
        return None
