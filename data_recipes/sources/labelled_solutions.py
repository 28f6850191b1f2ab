"""Models' solutions labelled right or wrong, as published with GSM8K: one record a solution.

The labels are the data's own; at which step a wrong solution first goes wrong is guessed (`first_wrong_step`).
"""

import ast
import math
import operator
import re
from collections.abc import Iterator
from typing import Any

from data_recipes.errors import UserError
from data_recipes.sources import Place, SourceSettings, files

REPOSITORY = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math"
_ANNOTATION = re.compile(r"<<([^<>]*)>>")  # <<expression=value>>
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Settings(SourceSettings):
    """``path``: JSON Lines with ``question``, ``ground_truth`` and, by model, ``is_correct`` and ``solution``."""

    path: str = f"{REPOSITORY}/data/example_model_solutions.jsonl"


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield ``question``, ``answer``, ``model``, ``solution`` (without annotations), ``steps`` (its lines but the last,
    the answer's), ``final_answer`` (or None), ``is_correct`` and ``first_wrong_step``; ``key`` is LINE/MODEL.
    """
    for record in files.records(_file(settings), place):
        line = record.pop("key").rpartition(":")[2]
        question, truth = record.pop("question", None), record.pop("ground_truth", None)
        if not isinstance(question, str) or not isinstance(truth, str) or not all(map(_labelled, record.values())):
            raise UserError(
                f"{settings.path}, line {line}: not a question with its ground_truth and, by model, labelled solutions;"
                " mend that line, or give the file as published"
            )
        right = [truth, *(given["solution"] for given in record.values() if given["is_correct"])]
        for model, given in record.items():
            steps, final_answer = _parts(given["solution"])
            yield {
                "key": f"{line}/{model}",
                "question": question,
                "answer": _parts(truth)[1],
                "model": model,
                "solution": _ANNOTATION.sub("", given["solution"]),
                "steps": [_ANNOTATION.sub("", step) for step in steps],
                "final_answer": final_answer,
                "is_correct": given["is_correct"],
                "first_wrong_step": None if given["is_correct"] else first_wrong_step(steps, right),
            }


def revision(settings: Settings, place: Place) -> str:
    """Return the file's name and the hash of its content."""
    return files.revision(_file(settings), place)


def first_wrong_step(steps: list[str], right: list[str]) -> int | None:
    """Guess which step (from 1) of a wrong solution is the first wrong one; None where nothing can be said.

    It is the first with false arithmetic, else the first that computes a value which no step of the `right` solutions
    computes. A heuristic: there may be another way yet to the answer, and a wrong quantity may have a right value.
    """
    known = [value for solution in right for _, value in _computed(solution)]
    computed = [(number, *one) for number, step in enumerate(steps, start=1) for one in _computed(step)]
    false = (number for number, result, value in computed if result is not None and not _same(result, value))
    strange = (number for number, _, value in computed if known and not any(_same(value, one) for one in known))
    return next(false, None) or next(strange, None)


def _file(settings: Settings) -> files.Settings:
    return files.Settings(type="files", path=settings.path)


def _labelled(given: Any) -> bool:
    return isinstance(given, dict) and isinstance(given.get("solution"), str) and "is_correct" in given


def _parts(solution: str) -> tuple[list[str], str | None]:
    lines = [line.strip() for line in solution.splitlines() if line.strip()]
    has_answer = bool(lines) and lines[-1].startswith("A:")
    return (lines[:-1], lines[-1].removeprefix("A:").strip() or None) if has_answer else (lines, None)


def _computed(text: str) -> list[tuple[float | None, float]]:
    """Return, for every annotation in `text`, what its expression comes to (None: unclear) and the value it gives."""
    pairs = [annotation.replace(",", "").rpartition("=") for annotation in _ANNOTATION.findall(text)]
    values = [(_value(expression), _value(given)) for expression, _, given in pairs]
    return [(result, given) for result, given in values if given is not None]


def _value(expression: str) -> float | None:
    try:
        return _evaluated(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _evaluated(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float()):
            return float(node.value)
        case ast.UnaryOp(op=ast.USub()):
            return -_evaluated(node.operand)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_evaluated(node.left), _evaluated(node.right))
    raise ValueError("not plain arithmetic")


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=0.01, abs_tol=0.01)  # values are often rounded
