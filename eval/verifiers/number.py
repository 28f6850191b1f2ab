"""A number, read as a person would: what is announced as the answer, else the last number written."""

import re
from decimal import Decimal, InvalidOperation

from data_recipes.row import Row

NUMBER = r"[-−]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-−]?\.\d+"
_ANNOUNCED = re.compile(
    rf"(?:\banswer\b[^.\n\d]{{0,40}}?(?:\bis\b|=|:)|^A:)[\s$*`\[({{]*({NUMBER})(?![\d.,]*\s*[-+*/×=]\s*\d)", re.I | re.M
)
_BOXED = re.compile(rf"\\boxed\{{\s*({NUMBER})")
_ANY = re.compile(rf"(?<![\w.])({NUMBER})(?!\w)|(?<=\d)[a-z]*\s*=\s*({NUMBER})", re.I)


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(re.sub(r"[\s,]", "", text.replace("−", "-")))
    except InvalidOperation:
        return None


def read(completion: str, row: Row) -> str | None:
    """Return the boxed number, else the last announced one ("the answer is 5"), else the last number."""
    for pattern in (_BOXED, _ANNOUNCED, _ANY):
        found = [next(group for group in match.groups() if group) for match in pattern.finditer(completion)]
        if found:
            return re.sub(r"\s", "", found[-1]).replace("−", "-")
    return None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the two are the same number (7, 7.0 and 7.00 are), else 0.0."""
    return float(_decimal(answer) is not None and _decimal(answer) == _decimal(row.answer or ""))


def fault(answer: str, row: Row) -> str:
    """Say by how much the answer is off."""
    given, right = _decimal(answer), _decimal(row.answer or "")
    if given is None or right is None:
        return f"{answer} is not {row.answer}"
    off = abs(given - right)
    return f"{answer} is {off.normalize():f} too {'high' if given > right else 'low'}"
