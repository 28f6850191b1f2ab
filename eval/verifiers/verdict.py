"""A critique's verdict on an answer: ``Judgment: correct`` or ``Judgment: incorrect``, else what its words say."""

import re
from collections import deque

from data_recipes.row import Row

_NOT = r"(?:\b(?:not(?!\s+only)|never|hardly|cannot|far\s+from|partially|partly|almost|nearly)\b|n['’]t\b)"
_NEGATED = rf"({_NOT}\s{{1,8}}(?:[\w-]{{1,20}}\s{{1,8}}){{0,2}})?"
_WORD = r"\b(incorrect|correct|right|wrong)\b"
_SUBJECT = r"(?:(?:the|this|response|answer|solution|final|code|it|is|was|are|seems|therefore|so)\b\W{1,4}){0,8}"
_LINE = re.compile(rf"judge?ment\W{{0,6}}{_SUBJECT}(?:is(?=n))?{_NEGATED}{_WORD}", re.I)
_ECHO = re.compile(r"judge?ment:\s{0,3}correct\W{1,4}or\W{1,4}(?:judge?ment:\s{0,3})?incorrect", re.I)
_WORDS = re.compile(rf"{_NEGATED}{_WORD}", re.I)
_HEDGED = re.compile(
    r"\b(?:whether|if|either|unless|would|should|could)\b[^.!?\n]*$|\b(?:correct|right)\s+or\s*$", re.I
)
_GIVES_THE = re.compile(
    r"\b(?:gives?|gave|has|had|gets?|got|reach(?:es|ed)|finds?|found|arrives?\s+at)\s+(?:the|a)\s+$", re.I
)
_OF_ANOTHER = re.compile(
    r"\s+(?:answer|value|result|solution|number|total|sum|option|choice|amount|order|way)s?\b", re.I
)
_NO_VERDICT = re.compile(
    r"\s*\?|\s+or\s+(?:in)?(?:correct|wrong)\b|[ -](?:hand|side|angle|angled|triangle|now|away)\b", re.I
)


def read(completion: str, row: Row) -> str | None:
    """Return ``correct`` or ``incorrect`` from the last verdict line, else from the last words that say either.

    Not counted are the request's own words said again ("Judgment: correct" or "Judgment: incorrect"), questions,
    conditions, and the right answer that a critique names beside the response's ("the correct answer is 5").
    """
    verdict = read_line(completion, row)
    if verdict:
        return verdict
    found = deque(filter(_says, _WORDS.finditer(_ECHO.sub(" ", completion))), maxlen=1)
    return _meaning(found[0]) if found else None


def read_line(completion: str, row: Row) -> str | None:
    """Return the verdict of the last ``Judgment:`` line only."""
    found = deque(_LINE.finditer(_ECHO.sub(" ", completion)), maxlen=1)
    return _meaning(found[0]) if found else None


def _meaning(found: re.Match[str]) -> str:
    return "correct" if (found[2].lower() in ("correct", "right")) != bool(found[1]) else "incorrect"


def _says(found: re.Match[str]) -> bool:
    text, start = found.string, found.start()
    before = text[max(0, start - 80) : start]
    after = text[found.end() : found.end() + 20]
    if _HEDGED.search(before) or _NO_VERDICT.match(after):
        return False
    named = found[2].lower() in ("correct", "right") and _OF_ANOTHER.match(after)
    return not named or bool(found[1]) or bool(_GIVES_THE.search(before))


EXTRACTIONS = {"line": read_line}


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the verdict is the true one, else 0.0."""
    return float(answer == row.answer)
