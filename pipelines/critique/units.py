"""Critique units, what a meta-critic says of them, and what follows from that: scores, pairs, revision validation.

After MultiCritique (arXiv 2410.15287), of which no training code is public. The names of the seven categories, the
numbers of penalties and severities and the score of a critique were not recovered: they are our design.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

SEVERITIES = {"minor": 0.25, "moderate": 0.5, "major": 0.75, "critical": 1.0}
"""How much a flaw weighs (four levels; our numbers)."""
PENALTIES = {
    "valid_precise": 0.0,
    "valid_vague": 0.25,
    "valid_minor_as_major": 0.5,
    "wrong_location": 0.75,
    "wrong_reason": 1.0,
    "harmful_suggestion": 1.0,
    "hallucinated_or_duplicate": 1.0,
}
"""The categories into which a meta-critic sorts units, and what each takes off (names and numbers are ours)."""
MOST_PENALTY_KEPT = 0.5
"""A unit with a higher penalty isn't kept: its place, reason or suggestion is wrong."""
VERDICTS = ("correct", "incorrect")
AGGREGATE = "final critique"
"""What the aggregate is called among the critics; no agent may be."""

Name = Annotated[str, Field(min_length=1, max_length=60)]
_strict = ConfigDict(extra="forbid")


class Criterion(BaseModel):
    """A criterion and its parts: the two tiers."""

    model_config = _strict
    name: Name
    aspects: Annotated[list[Name], Field(min_length=1, max_length=3)]


class Information(BaseModel):
    """What critics need to know of a query."""

    model_config = _strict
    task: str
    criteria: Annotated[list[Criterion], Field(min_length=1, max_length=3)]
    reference: str

    @property
    def criterion_names(self) -> list[str]:
        """Both tiers as one list of distinct names, ``criterion: aspect``."""
        return list(dict.fromkeys(f"{one.name}: {aspect}" for one in self.criteria for aspect in one.aspects))


class Unit(BaseModel):
    """One flaw."""

    model_config = _strict
    first_sentence: int
    last_sentence: int
    """The flaw is in these sentences, counted from 1; with last before first it is nowhere."""
    flaw: str
    criterion: str
    severity: Literal["minor", "moderate", "major", "critical"]
    suggestion: str

    def place(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """Return the characters (start, end) of the response that it points at, or None where it points nowhere."""
        if not 1 <= self.first_sentence <= self.last_sentence <= len(spans):
            return None
        return spans[self.first_sentence - 1][0], spans[self.last_sentence - 1][1]


class Critique(BaseModel):
    """An agent's critique."""

    model_config = _strict
    units: list[Unit]
    verdict: Literal["correct", "incorrect"]


class Judgement(BaseModel):
    """What a meta-critic says of one unit."""

    model_config = _strict
    reason: str
    category: Literal[tuple(PENALTIES)]  # type: ignore[valid-type]

    @property
    def penalty(self) -> float:
        """What the category takes off."""
        return PENALTIES[self.category]


def information_model(longest: int) -> type[Information]:
    """Return `Information` with texts of at most `longest` characters, the reference of twice as many."""
    reference = _text(2 * longest)
    return create_model("Information", __base__=Information, task=(_text(longest), ...), reference=(reference, ...))


def judgement_model(longest: int) -> type[Judgement]:
    """Return `Judgement` with a reason of at most `longest` characters."""
    return create_model("Judgement", __base__=Judgement, reason=(_text(longest), ...))


def _text(longest: int) -> Any:
    return Annotated[str, Field(min_length=1, max_length=longest)]


def critique_model(num_sentences: int, criteria: Sequence[str], most_units: int, longest: int) -> type[BaseModel]:
    """Return the model of a critique of one response: places are its sentences, criteria its query's.

    Its JSON Schema is what decoding is held to, and it checks what came out. What it lets through is a `Critique`.

    Args:
        longest: text, in characters.
    """
    sentence = Annotated[int, Field(ge=1, le=num_sentences)]
    fields: dict[str, Any] = {
        "first_sentence": (sentence, ...),
        "last_sentence": (sentence, ...),
        "flaw": (_text(longest), ...),
        "criterion": (Literal[tuple(criteria)], ...),
        "severity": (Literal[tuple(SEVERITIES)], ...),
        "suggestion": (_text(longest), ...),
    }
    unit = create_model("Unit", __config__=_strict, **fields)
    units = Annotated[list[unit], Field(max_length=most_units)]  # type: ignore[valid-type]
    return create_model("Critique", __config__=_strict, units=(units, ...), verdict=(Literal[VERDICTS], ...))


_END = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[\"'(\[]?[A-Z0-9$\\])")
_STEP = re.compile(r"\s*(?:Step|Thought) (\d+):")


def sentences(response: str) -> list[tuple[int, int]]:
    """Return the characters (start, end) of a response's sentences; a line that begins with ``Step 3:`` is one."""
    spans = []
    for line in re.finditer(r"[^\n]+", response):
        start = line.start()
        ends = [] if _STEP.match(line[0]) else [(found.start(), found.end()) for found in _END.finditer(line[0])]
        for end, following in [*ends, (len(line[0]), None)]:
            text = response[start : line.start() + end]
            if text.strip():
                left = len(text) - len(text.lstrip())
                spans.append((start + left, start + len(text.rstrip())))
            start = line.start() + (following or 0)
    return spans


def sentence_of_step(response: str, spans: Sequence[tuple[int, int]], step: int) -> int | None:
    """Return the number (from 1) of the sentence that is the ``Step N:`` line of `step`, if there is one."""
    for number, (start, end) in enumerate(spans, start=1):
        found = _STEP.match(response[start:end])
        if found and int(found[1]) == step:
            return number
    return None


def critique_score(units: Sequence[Unit], judgements: Sequence[Judgement]) -> float:
    """Return what a critique is worth, in [-1, 1]; 0 without units.

    The sum over units of severity (1 - penalty), less that of penalty times severity, by the number of units (our
    design: the paper's severity scores were not recovered).
    """
    if not units:
        return 0.0
    parts = [SEVERITIES[u.severity] * (1 - 2 * j.penalty) for u, j in zip(units, judgements, strict=True)]
    return sum(parts) / len(units)


@dataclass(frozen=True)
class Pair:
    """Two critiques of one response, by the names of who wrote them."""

    chosen: str
    rejected: str


def preference(scores: dict[str, float]) -> Pair | None:
    """Return the critiques of the highest and the lowest score (of equal ones the first), or None where all are equal.

    The pool is the agents' own critiques: whether the paper's has the aggregate in it isn't known.
    """
    if not scores or min(scores.values()) == max(scores.values()):
        return None
    return Pair(max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__))


def validated_by_revisions(chosen: Sequence[float | None], rejected: Sequence[float | None]) -> bool | None:
    """Tell whether a pair is kept (MARV): the mean reward of revisions after the chosen critique is the higher.

    Args:
        chosen: rewards of the revisions by all revisers; None: it could not be judged, and takes no part.

    Returns:
        None where one side has no judged revision.
    """
    means = []
    for rewards in (chosen, rejected):
        judged = [reward for reward in rewards if reward is not None]
        if not judged:
            return None
        means.append(sum(judged) / len(judged))
    return means[0] > means[1]
