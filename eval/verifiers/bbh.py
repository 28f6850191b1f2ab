"""BIG-Bench Hard's answers, read by what kind of thing a task's answer is.

A letter in brackets, a label (Yes, False, invalid), a number, closing brackets, a list of words, or other words. As in
the published evaluation an answer is what follows "the answer is" last; a completion that does not say so is read as a
whole. Words may be separated by spaces or commas, brackets by anything.
"""

import re

from data_recipes.row import Row
from eval.verifiers import choice, label, number

_OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.M)
_LETTER = re.compile(r"\(([A-Z])\)")
_ANNOUNCED = re.compile(r"answer is:?[ \t]{0,4}", re.I)
_BULLET = re.compile(r"^[ \t]{0,8}(?:\d{1,2}[.)]|[-*•])[ \t]+", re.M)
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_BRACKETS = re.compile(r"[()\[\]{}<>]")
_EDGE = " \t\n\"'`*.:“”‘’"
_TAIL = 4000


def options(row: Row) -> list[str]:
    """Return what there is to choose from: lettered options, or labels; [] where the answer is free."""
    kind = _kind(row)
    if kind == "letter":
        return [text.strip() for _, text in _OPTION.findall(row.question)]
    return label.options(row) if kind == "label" else []


def read(completion: str, row: Row) -> str | None:
    """Return the answer in the form of its task's, or None where there is none of that form."""
    kind = _kind(row)
    found = [match.end() for match in _ANNOUNCED.finditer(completion)]
    after = completion[found[-1] : found[-1] + _TAIL] if found else ""
    said = after.split("\n")[0]
    if kind == "letter":
        letter = _LETTER.search(said)
        text = letter[1] if letter else choice.read(completion[-_TAIL:], row)
        return f"({text})" if text else None
    if kind == "label":
        return label.read(completion, row)
    if kind == "number":
        return number.read(completion[-_TAIL:], row)
    text = said if said.strip(_EDGE) else _last_paragraph(after or completion[-_TAIL:])
    if kind == "brackets":
        brackets = _BRACKETS.findall(text)
        if not found and len(brackets) > 1:  # the whole sequence, perhaps: what closes it stands at its end
            brackets = _closing(brackets)
        return " ".join(brackets) or None
    return text.strip(_EDGE) or None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where it is the right answer in the form of its task's (letter case and separators aside)."""
    kind, gold = _kind(row), (row.answer or "").strip()
    if kind == "label":
        return label.score(answer, row)
    if kind == "number":
        return number.score(answer, row)
    if kind in ("letter", "brackets"):
        return float(answer == " ".join(gold.split()))
    return float(_words(answer) == _words(gold))


def _kind(row: Row) -> str:
    gold = (row.answer or "").strip()
    if _LETTER.fullmatch(gold):
        return "letter"
    if any(gold.casefold() in family for family in label.FAMILIES):
        return "label"
    if re.fullmatch(r"-?\d+", gold):
        return "number"
    return "brackets" if gold and not gold.strip("()[]{}<> ") else "words"


def _last_paragraph(text: str) -> str:
    return " ".join(_BULLET.sub("", text.strip().rsplit("\n\n", 1)[-1]).split())


def _closing(brackets: list[str]) -> list[str]:
    """Return the brackets after the last opening one that close what the ones before left open."""
    last = max((place for place, sign in enumerate(brackets) if sign in _PAIRS), default=-1)
    return brackets[last + 1 :]


def _words(text: str) -> list[str]:
    return [word.strip(_EDGE + ",;") for word in re.split(r"[\s,;]+", text.casefold()) if word.strip(_EDGE + ",;")]
