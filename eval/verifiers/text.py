"""A word or short phrase: the answer on its own, quoted, or at either end of a sentence that says it."""

import re

from data_recipes.row import Row

_EDGE = " \t\n\"'`*.,:;!?()[]“”‘’"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip(_EDGE).casefold())


def read(completion: str, row: Row) -> str | None:
    """Return what is quoted or bold in the first sentence, else what stands after "is" or a colon, else the line."""
    lines = [line for line in completion.splitlines() if line.strip(_EDGE)]
    if not lines:
        return None
    line = lines[0] if not lines[0].rstrip().endswith(":") or len(lines) == 1 else lines[1]
    marked = re.findall(r"\*\*([^*]+)\*\*|\"([^\"]+)\"|“([^”]+)”|(?<!\w)'([^']+)'(?!\w)", line)
    if marked:
        return next(group for group in marked[-1] if group).strip(_EDGE) or None
    said = re.split(r"\b(?:is|are|was|be|spells?|becomes?)\b\s*:?|[:=]", line)
    return said[-1].strip(_EDGE) or None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the texts agree (letter case, edges and spacing aside), else 0.0."""
    return float(_plain(answer) == _plain(row.answer or ""))


def fault(answer: str, row: Row) -> str:
    """Name the first letter where the answer goes wrong."""
    given, right = _plain(answer), _plain(row.answer or "")
    for place, (mine, wanted) in enumerate(zip(given, right, strict=False), start=1):
        if mine != wanted:
            return f"Letter {place} is {mine} but must be {wanted}"
    return f"It has {len(given)} letters instead of {len(right)}"
