"""A rating on a scale, such as ``Decision: 5`` or ``Score: 9``, however it is marked up.

``row.meta["scale"]`` is [lowest, highest], 1 to 7 where it is missing; a rating outside is no rating.
"""

import ast
import operator
import re
from math import isfinite

from data_recipes.row import Row
from eval.verifiers.preference import after_label

_NUMBER = r"(\d{1,6}(?:\.\d{1,6})?)(?:\s?/\s?(\d{1,3}))?(?!\w|\.\d|\s?[-–−/]\s?\d)"  # 5, 5.5, 5/7; not 5-6
_LABELLED = re.compile(r"\b(?:decision|score|rating)[^\w\n.−-]{0,8}(?:is[^\w\n.−-]{0,8})?" + _NUMBER, re.I)
_ALONE = re.compile(r"[^\w.−-]{0,8}" + _NUMBER + r"[^\w−-]{0,8}")


def _scale(row: Row) -> tuple[float, float]:
    low, high = row.meta.get("scale", (1, 7))
    return low, high


def read(completion: str, row: Row) -> str | None:
    """Return the last labelled rating on the scale, or the number where a completion is nothing but that.

    "5/7" is 5 on a scale that ends at 7; "5/10" is a rating on another scale, and so none.
    """
    low, high = _scale(row)
    found = _LABELLED.findall(completion)
    if not found and len(completion) < 100 and (alone := _ALONE.fullmatch(completion.strip())):
        found = [alone.groups()]
    if not found:
        return None
    rating, out_of = found[-1]
    return rating if low <= float(rating) <= high and (not out_of or float(out_of) == high) else None


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_ARITHMETIC = re.compile(r"(?=.{0,29}\d)[\d.+\-*/()eE_]{1,30}")


def _worth(node: ast.AST) -> float | int:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _worth(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_worth(node.left), _worth(node.right))
    raise ValueError("not arithmetic")


def last_number(text: str) -> float | int | None:
    """Return the last word of `text` that is a number other than 0, or arithmetic that makes one.

    CriticEval's ``parse_math_result`` tries Python's eval() on every word; here only numbers, + - * / and brackets are
    worked out, so that nothing a model writes is run. That 0 is never found is the script's own rule.
    """
    for word in reversed(text.replace("=", "= ").split()):
        if not _ARITHMETIC.fullmatch(word):
            continue
        try:
            value = _worth(ast.parse(word, mode="eval").body)
        except (SyntaxError, ValueError, ArithmeticError):
            continue
        if value and isfinite(value):
            return value
    return None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _compat(completion: str, row: Row) -> str | None:
    """CriticEval's ``extract_decision`` and ``extract_score``, quirks included.

    On the first line with the label the whole rest must be a number, else its first word, else the last number of the
    completion is taken: ``**Score: 9**`` reads as whatever number the text ends with. The scale is not looked at.
    """
    said = after_label(completion, f"{row.meta.get('label', 'Decision')}: ") or ""
    candidates = [said, *said.split()[:1]]
    value = next((number for one in candidates if (number := _float(one)) is not None), None)
    value = last_number(completion) if value is None else value
    return None if value is None or not isfinite(value) else str(value)


EXTRACTIONS = {"compat": _compat}


def score(answer: str, row: Row) -> float:
    """Return how close the rating is to the true one: 1.0 the same, 0.0 a whole scale away (our design)."""
    low, high = _scale(row)
    return max(0.0, 1 - abs(float(answer) - float(row.answer or low)) / (high - low))
