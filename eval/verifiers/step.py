"""Where a chain of thought first goes wrong: the number of the step, from 1, or ``none``."""

import re
from collections import deque

from data_recipes.row import Row

_STEP = r"(?:thoughts?|steps?)\W{0,4}(?:number\s|no\.\s?|#)?(\d{1,4})\b"
_FLAW = r"(?:mistakes?|errors?|wrong|incorrect|flawed|false)"
_BARE = re.compile(rf"\W*(?:the\s)?(?:answer\W{{1,4}}(?:is\W{{1,4}})?)?(?:(no|none)|(?:{_STEP}|(\d{{1,4}})))\W*", re.I)
_FIRST = re.compile(
    rf"first\s(?:\w{{1,12}}\s){{0,2}}?{_FLAW}(?:\s\w{{1,12}}){{0,4}}?\W{{1,4}}(?:{_STEP}|(\d{{1,4}})\b)"
    rf"|{_STEP}\W{{1,3}}(?:is|has|contains|holds|was)\s(?:the\s|a\s)?first\b",
    re.I,
)
_ANSWER = re.compile(rf"\banswer\W{{1,4}}(?:is\W{{1,4}})?(?:(no|none)\b|{_STEP}|(\d{{1,4}})\b)", re.I)
_FLAWED = re.compile(
    rf"(?<!\bno\s)(?<!\bany\s)(?<!\bother\s)(?<!\blogical\s){_FLAW}\s(?:is\s|was\s|occurs\s|made\s)?(?:in|at)\s{_STEP}"
    rf"|{_STEP}\W{{1,3}}(?:is|was|has|contains|makes)\s(?:an?\s|the\s)?{_FLAW}\b",
    re.I,
)
_NONE = re.compile(
    rf"\b(?:no|not\sany|without(?:\sany|\sa)?)\s(?:logical\s|such\s|step\s|thought\s|is\s)*{_FLAW}\b"
    r"|\b(?:all|every|each)\s(?:of\sthe\s|the\s)?(?:steps?|thoughts?)\s(?:is|are)\s(?:correct|right|true|valid)\b",
    re.I,
)


def read(completion: str, row: Row) -> str | None:
    """Return the number of the first wrong step, or ``none``.

    Read from the first line where that is the whole answer ("No", "4", "Thought 4"), else from the last place that says
    which is first ("the first mistake is in step 4"), else from the first step that is called wrong, else from the last
    announced answer ("the answer is 4"; the chain's own answer may be quoted, so it comes late), else from words that
    nothing is wrong.
    """
    first_line = completion.strip().split("\n", 1)[0][:40]
    bare = _BARE.fullmatch(first_line)
    if bare:
        return _said(bare)
    found = _last(_FIRST, completion) or _FLAWED.search(completion) or _last(_ANSWER, completion)
    if found:
        return _said(found)
    return "none" if _NONE.search(completion) else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = deque(pattern.finditer(text), maxlen=1)
    return last[0] if last else None


def _said(found: re.Match[str]) -> str:
    word = next(group for group in found.groups() if group)
    return str(int(word)) if word.isdigit() else "none"


def score(answer: str, row: Row) -> float:
    """Return 1.0 where it is exactly the right step, or ``none`` where no step is wrong, else 0.0."""
    return float(answer == row.answer)


def fault(answer: str, row: Row) -> str:
    """Say where the first mistake is."""
    return "No step is wrong" if row.answer == "none" else f"Step {row.answer} is the first wrong one"
