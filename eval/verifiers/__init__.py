"""Judging a completion: one verifier labels critique data, rewards GRPO and scores benchmarks.

A verifier module ``eval/verifiers/NAME.py`` is named in a recipe's ``verifiers: [NAME]``. It defines::

    def read(completion: str, row: Row) -> str | None: ...   # the answer as a person would read it; None: unparsed
    def score(answer: str, row: Row) -> float: ...           # 1.0 right ... 0.0 wrong
    def fault(answer: str, row: Row) -> str: ...             # optional: what is wrong with `answer`, in a few words
"""

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType

from data_recipes.errors import UserError, nearest
from data_recipes.row import Row


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a completion."""

    score: float | None
    """1.0 right, 0.0 wrong; None: no answer could be read (unparsed), which is never turned into a score here."""
    answer: str | None
    """The answer that was read."""


def load_verifier(name: str) -> ModuleType:
    """Import the verifier called `name`.

    Raises:
        UserError: there is no such verifier.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"unknown verifier {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name}")


def verify(row: Row, completion: str) -> Verdict:
    """Judge `completion` with all of the row's verifiers; the lowest score counts, and one unparsed makes all unparsed.

    Raises:
        UserError: the row names no verifier, or one that does not exist.
    """
    if not row.verifiers:
        raise UserError(f"row {row.id!r} of task {row.task!r} names no verifier, so nothing can judge it")
    verdicts = []
    for name in row.verifiers:
        verifier = load_verifier(name)
        answer = verifier.read(completion, row)
        verdicts.append(Verdict(None if answer is None else verifier.score(answer, row), answer))
    unparsed = [verdict for verdict in verdicts if verdict.score is None]
    return unparsed[0] if unparsed else min(verdicts, key=lambda verdict: verdict.score)


def fault(row: Row, answer: str) -> str:
    """Say in a few words what is wrong with `answer`, where the row's verifier can tell."""
    for name in row.verifiers:
        describe = getattr(load_verifier(name), "fault", None)
        if describe:
            return describe(answer, row)
    return ""
