"""One of a few labels (yes, no, maybe; bearish, bullish, neutral; valid, invalid), in whatever sentence it is said."""

import re
from functools import lru_cache

from data_recipes.errors import UserError
from data_recipes.row import Row

FAMILIES = (
    ("yes", "no", "maybe"),
    ("yes", "no"),
    ("true", "false"),
    ("valid", "invalid"),
    ("bearish", "bullish", "neutral"),
    ("positive", "negative", "neutral"),
)
_SAID = r"(?:answer|label|sentiment|class|category|verdict|decision|conclusion|judge?ment)"
_NOT = re.compile(
    r"(?:\b(?:not?|never|neither|nor|cannot|without|rather than)|n['’]t)(?:\s+(?!but\b|so\b)\w+){0,2}\s*[\"'“‘*]{0,2}$",
    re.I,
)
_SENTENCES = re.compile(r"(?<=[.!?])\s|\n")
_EDGE = " \t\"'`*_.,:;!?()[]{}<>#“”‘’-–—"
_TAIL = 4000


def options(row: Row) -> list[str]:
    """Return the labels a row's answer is one of: those of the family that its prompt names, else of the smallest one.

    Raises:
        UserError: the answer is no label of any family.
    """
    given = row.meta.get("options")
    answer = (row.answer or "").strip().casefold()
    if given and answer in {str(label).strip().casefold() for label in given}:
        return [str(label).strip().casefold() for label in given]
    families = [family for family in FAMILIES if answer in family]
    if not families:
        known = ", ".join(dict.fromkeys(label for family in FAMILIES for label in family))
        raise UserError(f"row {row.id!r}: the answer {row.answer!r:.60} is no label (known: {known}); mend the row")
    asked = set(re.findall(r"\w+", "\n".join(turn["content"] for turn in row.prompt).casefold()))
    named = [family for family in families if asked >= set(family)]
    return list(named[0] if named else min(families, key=len))


def read(completion: str, row: Row) -> str | None:
    """Return the label that is boxed or announced last ("the answer is maybe, because ..."), else the last that has a
    line to itself, else the one the completion begins with, else the only one of the last sentence that says any.

    "not bearish" says neither bearish nor, where there are three labels, another; "not valid" says invalid.
    """
    labels = tuple(options(row))
    patterns = _patterns(labels)
    tail = completion[-_TAIL:]
    for pattern in patterns.announced:
        for match in reversed(list(pattern.finditer(tail))):
            label = _meant(match["label"], bool(match["no"]) if "no" in match.groupdict() else False, labels)
            if label:
                return label
    alone = [line.strip(_EDGE).casefold() for line in tail.splitlines()]
    if any(line in labels for line in alone):
        return next(line for line in reversed(alone) if line in labels)
    head = patterns.head.match(completion[:200])
    if head:
        return head["label"].casefold()
    return _only_one_said(tail, patterns.mention, labels)


def _only_one_said(text: str, mention: re.Pattern[str], labels: tuple[str, ...]) -> str | None:
    for sentence in reversed(_SENTENCES.split(text)):
        said = set()
        for match in mention.finditer(sentence):
            negated = bool(_NOT.search(sentence[max(0, match.start() - 40) : match.start()]))
            said.add(_meant(match["label"], negated, labels))
        said.discard(None)
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def _meant(label: str, negated: bool, labels: tuple[str, ...]) -> str | None:
    label = label.casefold()
    if not negated:
        return label
    others = [other for other in labels if other != label]
    return others[0] if len(others) == 1 else None


class _Patterns:
    def __init__(self, labels: tuple[str, ...]) -> None:
        one = rf"(?P<label>{'|'.join(map(re.escape, labels))})"
        edge = r"[\s*_\"'`“‘(\[:{]{0,8}"
        self.announced = (
            re.compile(rf"\\boxed\{{(?:\\text\{{)?\W{{0,3}}{one}\b", re.I),
            re.compile(
                rf"\b{_SAID}\b[^.\n:=]{{0,60}}?(?:\b(?:is|be|as)\b|[:=]){edge}"
                rf"(?:therefore\s|thus\s|clearly\s|likely\s|probably\s|most\s|a\s|an\s){{0,2}}(?P<no>not\s)?{edge}{one}\b",
                re.I,
            ),
        )
        self.head = re.compile(rf"[\s*_\"'`“‘(\[#]{{0,8}}{one}(?![\w-])(?=\W*$|\s*[.,:;!)\]*\"'”’–—-]|\s*\n)", re.I)
        # "no" before a word is no answer ("there is no difference"), so it needs the end of a clause
        words = [re.escape(label) + (r"(?=\W*$|\s*[.,:;!\"'”’)])" if label == "no" else "") for label in labels]
        self.mention = re.compile(rf"(?<![\w-])(?P<label>{'|'.join(words)})(?![\w-])", re.I)


@lru_cache
def _patterns(labels: tuple[str, ...]) -> _Patterns:
    return _Patterns(labels)


def score(answer: str, row: Row) -> float:
    """Return 1.0 where it is the right label, else 0.0."""
    return float(answer == (row.answer or "").strip().casefold())
