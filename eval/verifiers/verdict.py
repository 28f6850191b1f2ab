"""A critique's verdict on an answer: ``Judgment: correct`` or ``Judgment: incorrect``."""

import re

from data_recipes.row import Row

_LINE = re.compile(r"judge?ment\W{0,6}(?:is\W{0,3})?(not\s+)?(incorrect|correct|right|wrong)", re.I)
_WORDS = re.compile(r"\b(not\s+(?:quite\s+|entirely\s+)?)?(incorrect|correct|right|wrong)\b", re.I)


def read(completion: str, row: Row) -> str | None:
    """Return ``correct`` or ``incorrect`` from the last verdict line, else from the last word that says either."""
    for pattern in (_LINE, _WORDS):
        found = pattern.findall(completion)
        if found:
            negated, word = found[-1]
            return "correct" if (word.lower() in ("correct", "right")) != bool(negated) else "incorrect"
    return None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the verdict is the true one, else 0.0."""
    return float(answer == row.answer)
