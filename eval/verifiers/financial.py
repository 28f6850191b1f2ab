"""Figures with their scale and sign, and words from a report: TAT-QA's answers, judged as its own script judges them.

The rules are those of TAT-QA's ``tatqa_metric.py`` and ``tatqa_utils.py`` (github.com/NExTplusplus/TAT-QA): figures are
rounded to two places in the scale they are given in and then have to be equal, (134) is -134 ((1,234) and ($134) too,
which the script overlooks), 12% is 12 percent, a figure without a scale may also be the whole amount (0.2342 for 23.42
percent), words are compared without case, articles and punctuation, and several spans in any order. What its readers
hand the script as an answer and a scale is read out of the completion here.

A row's answer is a figure with its scale (``-22.22 percent``, ``1,496.5 million``, ``4``) or
``{"spans": [...], "scale": "million"}`` as JSON.
"""

import json
import re
import string
from dataclasses import dataclass
from functools import lru_cache

from data_recipes.errors import UserError
from data_recipes.row import Row

SCALES = {"": 1.0, "percent": 0.01, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_WRITTEN = {"%": "percent", "k": "thousand", "m": "million", "mm": "million", "mn": "million", "bn": "billion"}
_FIGURE = re.compile(
    r"(?P<open>\(\s?)?(?P<minus>(?<![\w)])[-−–](?=\S))?(?:(?:US|C|A|HK)?[$€£¥]\s?|(?:USD|EUR|GBP|RMB)\s)?(?P<open2>\(\s?)?"
    r"(?P<minus2>[-−])?(?<!\d)(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<close>\s?\))?"
    r"(?P<unit>\s?%|\s?(?:percent|thousand|million|billion|trillion)s?\b|(?:k|mm?|mn|bn)\b)?\)?(?![\w%])",
    re.I,
)
_ANNOUNCED = re.compile(r"\banswers?\b[^.\n:=]{0,60}?(?:\b(?:is|are)\b|[:=])[\s*:]{0,8}", re.I)
_COPULA = re.compile(r"\b(?:is|are|was|were)\b:?|:")
_BULLET = re.compile(r"^\s{0,8}(?:\d{1,2}[.)]|[-*•])\s+", re.M)
_COMMA = re.compile(r",\s*and\s+|,\s+|\s+and\s+|,(?!\d)")
_ARTICLES = {"a", "an", "the"}
_EDGE = " \t\n\"'`*.“”‘’"
_TAIL = 4000


@dataclass(frozen=True)
class Figure:
    """A number in a scale."""

    value: float
    scale: str


@dataclass(frozen=True)
class Gold:
    """What a row's answer says."""

    spans: tuple[str, ...]
    scale: str

    @property
    def figures(self) -> bool:
        """Whether every span is a figure."""
        return all(_figure(span) for span in self.spans)


def gold_of(row: Row) -> Gold:
    """Return a row's answer, taken apart.

    Raises:
        UserError: it is neither a figure nor the JSON described above.
    """
    return _gold_of(row.answer or "", row.id)


@lru_cache(maxsize=1 << 12)
def _gold_of(answer: str, row_id: str) -> Gold:
    figure = _figure(answer)
    if figure:
        return Gold((answer,), figure.scale)
    try:
        given = json.loads(answer)
        spans, scale = given["spans"], given["scale"] or ""
        if not all(isinstance(span, str) for span in spans) or scale not in SCALES:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            f"row {row_id!r}: the answer {answer!r:.60} is neither a figure with its scale nor JSON with 'spans' (a"
            f" list of text) and 'scale' (one of {', '.join(filter(None, SCALES))}); mend the row"
        ) from None
    return Gold(tuple(span for span in spans if span.strip()), scale)


def gold(row: Row) -> str:
    """Return the right answer as a person would write it."""
    return "; ".join(gold_of(row).spans)


def read(completion: str, row: Row) -> str | None:
    """Return the figure or the words that are announced ("the answer is ..."), else of figures the last one of the last
    line that holds any (a year only where there is nothing else), else the whole answer: words, or several spans."""
    right = gold_of(row)
    tail = completion[-_TAIL:]
    said = tail[[match.end() for match in _ANNOUNCED.finditer(tail)][-1] :] if _ANNOUNCED.search(tail) else ""
    if right.figures and len(right.spans) == 1:
        announced = _FIGURE.search(said[:60])
        if announced:
            return announced[0].strip()
        lines = [list(_FIGURE.finditer(line)) for line in tail.splitlines()]
        found = next((line for line in reversed(lines) if line), None)
        if not found:
            return None
        no_years = [match for match in found if not re.fullmatch(r"(?:19|20)\d\d", match[0].strip())]
        return (no_years or found)[-1][0].strip()
    text = (said or tail).strip()
    if len(right.spans) == 1:
        text = text.split("\n")[0] if said else next((line for line in text.split("\n") if line.strip(_EDGE)), "")
    return text.strip(_EDGE) or None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the answer is an exact match by TAT-QA's rules, else 0.0."""
    right = gold_of(row)
    if any(_match(parts, right) for parts in _ways_to_split(answer, len(right.spans))):
        return 1.0
    # spans that hold commas or "and" themselves
    return float(len(right.spans) > 1 and not right.figures and _joined(answer) == _joined(" ".join(right.spans)))


def fault(answer: str, row: Row) -> str:
    """Say what the right answer is."""
    return f"{answer} is not {gold(row)}"


def overlap(completion: str, row: Row) -> tuple[float, float]:
    """Return TAT-QA's F1 of the words (for a figure: whether it is right) and 1, so that they can be averaged."""
    right, answer = gold_of(row), read(completion, row)
    if answer is None:
        return 0.0, 1.0
    if score(answer, row) or (right.figures and len(right.spans) == 1):
        return score(answer, row), 1.0
    return max(_f1(parts, right.spans) for parts in _ways_to_split(answer, len(right.spans))), 1.0


FIGURES = {"F1": overlap}


def _ways_to_split(answer: str, count: int) -> list[list[str]]:
    lines = _BULLET.sub("", answer)
    parts = [part.strip(_EDGE) for part in re.split(r"[;\n]", lines)]
    parts = [part for part in parts if part]
    whole = [answer.strip(_EDGE)]
    copulas = list(_COPULA.finditer(answer)) if len(whole[0]) <= _TAIL else []
    said = answer[copulas[-1].end() :].strip(_EDGE) if copulas and not re.search(r"\bnot\b", answer) else ""
    if count == 1:
        return [way for way in (whole, [lines.strip(_EDGE)], [said]) if way != [""]]
    ways = [parts] if len(parts) > 1 else []
    for text in (whole[0], said):
        ways.append([part.strip(_EDGE) for part in _COMMA.split(text) if part.strip(_EDGE)])
    labelled = [part.rsplit(":", 1)[-1].strip(_EDGE) for part in parts]  # "2019: $5 million"
    return [way for way in (*ways, labelled) if way]


def _match(parts: list[str], right: Gold) -> bool:
    left = list(parts)
    for span in right.spans:
        found = next((part for part in left if _same(part, span, right.scale)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _same(given: str, span: str, scale: str) -> bool:
    figure, wanted = _figure(given), _figure(span)
    if wanted is None or figure is None:
        return wanted is None and _words(given) == _words(span) and bool(_words(span))
    unit = wanted.scale or scale
    values = [figure.value * SCALES[figure.scale] / SCALES[unit]]  # without a scale: the whole amount
    if figure.scale in (unit, "") and unit == scale:  # or in the scale asked for
        values.append(figure.value)
    return any(round(value, 2) == round(wanted.value, 2) for value in values)


def _figure(text: str) -> Figure | None:
    match = _FIGURE.fullmatch(text.strip(_EDGE + ",;:"))
    if match is None:
        return None
    negative = match["minus"] or match["minus2"] or ((match["open"] or match["open2"]) and match["close"])
    unit = (match["unit"] or "").strip().lower()
    unit = _WRITTEN.get(unit, unit.removesuffix("s"))
    value = float(match["digits"].replace(",", "")[:300])
    return Figure(-value if negative else value, unit)


def _words(text: str) -> list[str]:
    tokens = []
    for token in text.casefold().split():
        figure = _figure(token)
        plain = f"{figure.value:g}" if figure else token.translate(_NO_PUNCTUATION)
        if plain and plain not in _ARTICLES:
            tokens.append(plain)
    return tokens


def _joined(text: str) -> list[str]:
    return [word for word in _words(text) if word != "and"]


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation + "“”‘’")


def _f1(parts: list[str], spans: tuple[str, ...]) -> float:
    given, wanted = set(_words(" ".join(parts))), set(_words(" ".join(spans)))
    shared = len(given & wanted)
    return round(2 * shared / (len(given) + len(wanted)), 2) if shared else 0.0
