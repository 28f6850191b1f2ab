"""Judging a completion: one verifier labels critique data, rewards GRPO and scores benchmarks.

A verifier module ``eval/verifiers/NAME.py`` is named in a recipe's ``verifiers: [NAME]``. It defines::

    def read(completion: str, row: Row) -> str | None: ...   # the answer as a person would read it; None: unparsed
    def score(answer: str, row: Row) -> float: ...           # 1.0 right ... 0.0 wrong
    def fault(answer: str, row: Row) -> str: ...             # optional: what is wrong with `answer`, in a few words
    EXTRACTIONS = {"L1": function, ...}                      # optional: other ways to `read`, by name
    STOPS = ("answer is A", ...)                             # optional: strings that complete a first match
    EARLY = ("L1", ...)                                      # the extractions that see no more than that match
    CONCURRENT = True                                        # optional: judging waits for another process
    def options(row: Row) -> list[str]: ...                  # optional: what the answer is one of
    def gold(row: Row) -> str: ...                           # optional: the right answer as a text
    FIGURES = {"name": function, ...}                        # optional: (completion, row) -> (right, of)
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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


@cache
def load_verifier(name: str) -> ModuleType:
    """Import the verifier called `name`: a module of this folder, or with a dot one of the user's own (`mine.length`).

    Raises:
        UserError: there is no such verifier, or the user's own cannot be imported or lacks a function.
    """
    if "." in name:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # importing runs the module
            raise UserError(
                f"verifier {name!r} cannot be imported ({type(error).__name__}: {error}); mend it, or put its folder on"
                " PYTHONPATH"
            ) from None
        missing = [function for function in ("read", "score") if not callable(getattr(module, function, None))]
        if missing:
            raise UserError(f"verifier {name!r} has no function {' and no '.join(missing)}; see docs/extending.md")
        return module
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"unknown verifier {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name}")


def verify(row: Row, completion: str, extraction: str = "") -> Verdict:
    """Judge `completion` with all of the row's verifiers; the lowest score counts, and one unparsed makes all unparsed.

    Args:
        extraction: one of the verifiers' EXTRACTIONS; empty: each one's own `read`.

    Raises:
        UserError: the row names no verifier, or one that does not exist, or none of its verifiers has the extraction.
    """
    if not row.verifiers:
        raise UserError(f"row {row.id!r} of task {row.task!r} names no verifier, so nothing can judge it")
    if extraction and not any(extraction in extractions_of(name) for name in row.verifiers):
        known = [known for name in row.verifiers for known in extractions_of(name)]
        raise UserError(
            f"{' and '.join(row.verifiers)}: no extraction {extraction!r}{nearest(extraction, known)}"
            + ("" if known else "; leave it out")
        )
    verdicts = []
    for name in row.verifiers:
        verifier = load_verifier(name)
        answer = extractions_of(name).get(extraction, verifier.read)(completion, row)
        verdicts.append(Verdict(None if answer is None else verifier.score(answer, row), answer))
    unparsed = [verdict for verdict in verdicts if verdict.score is None]
    return unparsed[0] if unparsed else min(verdicts, key=lambda verdict: verdict.score)


def extractions_of(name: str) -> dict[str, Callable[[str, Row], str | None]]:
    """Return the named ways in which a verifier can read an answer."""
    return getattr(load_verifier(name), "EXTRACTIONS", {})


def fault(row: Row, answer: str) -> str:
    """Say in a few words what is wrong with `answer`, where the row's verifier can tell."""
    for name in row.verifiers:
        describe = getattr(load_verifier(name), "fault", None)
        if describe:
            return describe(answer, row)
    return ""
