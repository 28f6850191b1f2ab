"""One of the names in the question: whoever the completion settles on, in whatever sentence."""

import re

from data_recipes.row import Row

_QUESTION_WORDS = {"Who", "Whom", "Whose", "Which", "What", "Reply", "Answer", "Name"}


def _candidates(row: Row) -> list[str]:
    first_words = re.findall(r"(?:^|[.!?:]\s+)([A-Z][\w’'-]*)", row.question)
    return sorted(set(first_words) - _QUESTION_WORDS, key=len, reverse=True)


def read(completion: str, row: Row) -> str | None:
    """Return the candidate after the last "answer is", else the last one mentioned; a lone other word as it stands."""
    candidates = _candidates(row)
    mentions = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?![\w-])" for name in candidates) or r"(?!)", re.I)
    announced = re.split(r"\banswer\b[^\w]*(?:is)?\b", completion, flags=re.I)
    for text in (announced[-1][:60] if len(announced) > 1 else "", completion):
        found = mentions.findall(text)
        if found:
            return found[0] if text is not completion else found[-1]
    alone = completion.strip(" \t\n\"'*.!,")
    return alone if alone and len(alone.split()) <= 2 else None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where it is the right name (letter case aside), else 0.0."""
    return float(answer.casefold() == (row.answer or "").casefold())


def fault(answer: str, row: Row) -> str:
    """Name the one who was meant."""
    return f"{answer} is not {row.answer}"
