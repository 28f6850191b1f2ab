"""Did the answer follow its instructions, as IFEval checks them (see `eval.constraints`)?

A row's answer is JSON with the columns ``instruction_id_list`` and ``kwargs`` as published. What is read out of a
completion is which instructions it follows; the score is 1 where it follows all (prompt-level strict accuracy).
The extraction ``loose`` forgives a first or last line too much and asterisks.
"""

import json
from functools import lru_cache

from data_recipes.errors import UserError, nearest
from data_recipes.row import Row
from eval.constraints import CHECKS, Arguments, is_followed, loosened

_RELATIONS = ("at least", "less than")


def instructions_of(row: Row) -> tuple[tuple[str, Arguments], ...]:
    """Return a row's instructions with their arguments.

    Raises:
        UserError: the answer holds no instructions, one that is not known, or one without its arguments.
    """
    return _instructions_of(row.answer or "", row.id)


@lru_cache(maxsize=1 << 12)
def _instructions_of(answer: str, row_id: str) -> tuple[tuple[str, Arguments], ...]:
    try:
        given = json.loads(answer)
        pairs = list(zip(given["instruction_id_list"], given["kwargs"], strict=True))
    except (ValueError, TypeError, KeyError, RecursionError):
        pairs = []
    if not pairs:
        raise UserError(
            f"row {row_id!r}: the answer {answer!r:.60} is no JSON with 'instruction_id_list' and 'kwargs' of one"
            " length; mend the row"
        )
    checked = []
    for name, arguments in pairs:
        if name not in CHECKS:
            raise UserError(f"row {row_id!r}: unknown instruction {name!r}{nearest(name, CHECKS)}; mend the row")
        # (on the hub every row has all arguments, those of other instructions empty)
        filled = {key: value for key, value in (arguments or {}).items() if value is not None}
        filled = {key: int(value) if isinstance(value, float) else value for key, value in filled.items()}
        for key in CHECKS[name][0]:
            if not _fits(key, filled.get(key)):
                raise UserError(f"row {row_id!r}: {name}: {key} is {filled.get(key)!r:.60}; mend the row")
        checked.append((name, filled))
    return tuple(checked)


def _fits(key: str, value: object) -> bool:
    if key.endswith("relation"):
        return value in _RELATIONS
    if key.startswith(("num_", "nth_")) or key.endswith("frequency"):
        return isinstance(value, int) and value >= 0
    if key in ("keywords", "forbidden_words"):
        return isinstance(value, list) and all(isinstance(word, str) and word for word in value)
    return isinstance(value, str) and bool(value.strip())


def read(completion: str, row: Row) -> str | None:
    """Return which instructions the text follows (``no_comma: yes, number_words: no``), or None of a blank one."""
    return _said(row, [completion]) if completion.strip() else None


def loose(completion: str, row: Row) -> str | None:
    """Return the same of the loose reading: an instruction is followed where any of its eight texts follows it."""
    return _said(row, loosened(completion)) if completion.strip() else None


EXTRACTIONS = {"strict": read, "loose": loose}


def score(answer: str, row: Row) -> float:
    """Return 1.0 where all instructions are followed, else 0.0."""
    return float(not broken(answer))


def fault(answer: str, row: Row) -> str:
    """Name the instructions that are not followed."""
    return f"It does not follow {' and '.join(broken(answer))}"


def broken(answer: str) -> list[str]:
    """Return the names of the instructions that an answer says are not followed."""
    return [said.removesuffix(": no") for said in answer.split(", ") if said.endswith(": no")]


def gold(row: Row) -> str:
    """Return nothing: no one text is right."""
    return ""


def _said(row: Row, texts: list[str]) -> str:
    followed = [
        (name.partition(":")[2], any(is_followed(text, name, arguments) for text in texts))
        for name, arguments in instructions_of(row)
    ]
    return ", ".join(f"{name}: {'yes' if yes else 'no'}" for name, yes in followed)


def _prompt_loose(completion: str, row: Row) -> tuple[float, float]:
    answer = loose(completion, row)
    return (0.0 if answer is None else score(answer, row)), 1.0


def _instructions(reading):
    def share(completion: str, row: Row) -> tuple[float, float]:
        count = len(instructions_of(row))
        answer = reading(completion, row)
        return (0.0 if answer is None else float(count - len(broken(answer)))), float(count)

    return share


FIGURES = {
    "prompts, loose": _prompt_loose,
    "instructions, strict": _instructions(read),
    "instructions, loose": _instructions(loose),
}
"""IFEval's other three accuracies: (right, of) for a completion."""
