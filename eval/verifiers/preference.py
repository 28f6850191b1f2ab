"""Which of two outputs is better: the letter of the place where the preferred one was shown (C: neither)."""

import re

from data_recipes.row import Row

_LINE_MARK = r"[^\w\n]{0,8}"
_DECISION = re.compile(
    rf"\bdecision{_LINE_MARK}(?:is{_LINE_MARK})?(?:(?:output|answer){_LINE_MARK})?([ABC])\b(?!\s?/)", re.I
)
_BRACKETS = re.compile(r"\[\[\s?([ABC])\s?\]\]", re.I)
_BETTER = re.compile(r"\boutput \(?([ab])\)? is (?:\w{1,20} ){0,2}better\b", re.I)
_OUTPUT = re.compile(r"\boutput \(([ab])\)", re.I)
_OUTPUT_LINE = re.compile(r"(?:^|\n)[ *_\"']{0,4}output \(([ab])\)", re.I)
_ALONE = re.compile(r"\W{0,8}([ABC])\W{0,8}", re.I)


def read(completion: str, row: Row) -> str | None:
    """Return ``A``, ``B`` or ``C``, whichever the completion settles on; None where it says both or none.

    In turn: the last ``Decision: A`` or ``[[A]]``, the last "Output (a) is better", the first line that begins with
    ``Output (a)``, the only output that is mentioned, a completion that is nothing but a letter.
    """
    for pattern, place in ((_DECISION, -1), (_BRACKETS, -1), (_BETTER, -1), (_OUTPUT_LINE, 0)):
        found = pattern.findall(completion)
        if found:
            return found[place].upper()
    mentioned = {letter.upper() for letter in _OUTPUT.findall(completion)}
    if len(mentioned) == 1:
        return mentioned.pop()
    alone = _ALONE.fullmatch(completion.strip())
    return alone[1].upper() if alone else None


def after_label(completion: str, label: str) -> str | None:
    """Return what follows the last `label` on the first line that has something after it, as CriticEval reads it.

    That is ``re.findall(".*(LABEL.+)", completion)[0]``, in time linear in the text.
    """
    for line in completion.split("\n"):
        at = line.rfind(label, 0, -1)  # something must follow
        if at >= 0:
            return line[at + len(label) :].replace(label.strip(), "").strip()
    return None


def _decision_option(completion: str, row: Row) -> str | None:
    """CriticEval's ``extract_decision_option``: the first letter after ``Decision: ``, else of the whole reply."""
    said = after_label(completion, "Decision: ")
    said = completion.replace(".", "").strip() if said is None else said
    return said[0] if said[:1] in ("A", "B", "C") else None


def _vanilla(completion: str, row: Row) -> str | None:
    """LLMBar's Vanilla configurations: a line that begins with ``Output (a)``; (a) is looked for first."""
    for letter in "ab":
        if re.search(rf"(?:^|\n) ?Output \({letter}\)", completion.strip()):
            return letter.upper()
    return None


EXTRACTIONS = {"compat": _decision_option, "vanilla": _vanilla}


def score(answer: str, row: Row) -> float:
    """Return 1.0 where it is the better output's place, else 0.0."""
    return float(answer == row.answer)
