"""A mathematical expression: what is in the box, else what is announced, else the last formula or number.

Compared as mathematics (``\\frac{1}{2}``, ``0.5`` and ``1/2`` are the same), by math-verify; see `eval.mathematics`.
"""

import re

from data_recipes.row import Row
from eval.mathematics import SECONDS, equal
from eval.verifiers.number import NUMBER

LONGEST = 500
"""Characters of an answer; MATH's longest has 81. What is longer is no answer."""
_TAIL = 2000
_BOX = re.compile(r"\\f?box(?:ed)?[ \t]{0,8}")
_ANNOUNCED = re.compile(r"\banswer\b[^.\n:=$]{0,60}(?:\bis\b|[:=])[\s:*]{0,8}", re.I)
_FORMULA = re.compile(
    r"(?<!\\)\$\$?((?:\\.|[^$\\])+)\$|\\\[((?:[^\\]|\\(?!\]))+)\\\]|\\\(((?:[^\\]|\\(?!\)))+)\\\)", re.S
)
_SENTENCE_END = re.compile(r"[.;!?](?:\s|$)")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s?\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,!;: ]|\\(?:left|right)(?![a-z])|[\s$]|\.$")
_FRACTION = re.compile(r"(?<![\w/.{])(\d{1,9})/(\d{1,9})(?![\d/.])")
_INTEGER = re.compile(r"-?\d{1,15}")


def boxed(text: str) -> str | None:
    """Return what is in the last box (``\\boxed{...}`` or ``\\fbox{...}``) of a text, or None where none is closed."""
    end = len(text)
    for _ in range(4):  # a last box that was cut off is no answer, but the one before may be
        start = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        if start < 0:
            return None
        inside = _BOX.match(text, start).end()
        if text[inside : inside + 1] != "{":
            bare = re.match(r"\w+", text[inside : inside + LONGEST])
            return bare[0] if bare else None
        depth = 0
        for place in range(inside, min(inside + LONGEST + 2, len(text))):
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                return text[inside + 1 : place].strip() or None
        end = start
    return None


def _announced(text: str) -> str | None:
    found = [match.end() for match in _ANNOUNCED.finditer(text)]
    said = [_first_of(text[end : end + LONGEST]) for end in found[-4:]]
    told = [answer for answer in said if answer]
    return next((answer for answer in reversed(told) if re.search(r"[\d\\]", answer)), told[-1] if told else None)


def _first_of(text: str) -> str:
    formula = _FORMULA.match(text)
    if formula:
        return next(group for group in formula.groups() if group).strip()
    line = text.split("\n", 1)[0]
    end = _SENTENCE_END.search(line)
    return (line[: end.start()] if end else line).strip(" \t*`")


def read(completion: str, row: Row) -> str | None:
    """Return the last boxed expression, else the last one announced ("the answer is $x$"), else the last formula (of
    an equation its right side, where no equation is asked for), else the last number, both near the end."""
    box = boxed(completion)
    if box:
        return box
    tail = completion[-_TAIL:]
    announced = _announced(completion[-20 * _TAIL :])
    if announced:
        return announced
    formulas = [next(group for group in groups if group) for groups in _FORMULA.findall(tail) if any(groups)]
    if formulas:
        last = formulas[-1] if "=" in gold(row) else formulas[-1].rsplit("=", 1)[-1]
        return last.strip()[:LONGEST] or None
    numbers = re.findall(rf"(?<![\w.])(?:{NUMBER})(?!\w)", tail)
    return re.sub(r"\s", "", numbers[-1]).replace("−", "-") if numbers else None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where answer and gold (an expression, or a solution with its box) are equal, else 0.0.

    An answer that takes more than 5 seconds of processor time to compare counts as 0.0 and `fault` says so. A machine
    that does not get to compare at all raises instead (`eval.mathematics.equal`): that is no wrong answer.
    """
    return float(_same(gold(row), answer) is True)


def fault(answer: str, row: Row) -> str:
    """Say what the right expression is, or that the comparison had no end."""
    if _same(gold(row), answer) is None:
        return f"{answer} cannot be compared within {SECONDS} seconds"
    return f"{answer} is not {gold(row)}"


def gold(row: Row) -> str:
    """Return the right expression."""
    return boxed(row.answer or "") or (row.answer or "").strip()


def _same(right: str, answer: str) -> bool | None:
    ours, theirs = _plain(right), _plain(answer)
    if ours == theirs:
        return True
    if len(answer) > LONGEST:
        return False
    if _INTEGER.fullmatch(ours) and _INTEGER.fullmatch(theirs):  # nearly all answers are numbers: no need to ask
        return int(ours) == int(theirs)
    right, answer = right.rstrip(" ."), answer.rstrip(" .")
    fractions = _FRACTION.sub(r"\\frac{\1}{\2}", answer)  # 2/3 pi may be meant as two thirds of it, and 1 1/2 as 1.5
    same = equal(right, answer)
    return same if same or fractions == answer else equal(right, fractions)


def _plain(text: str) -> str:
    return _SPACING.sub("", _WORDS.sub(r"\1", text.replace("dfrac", "frac").replace("tfrac", "frac")))
