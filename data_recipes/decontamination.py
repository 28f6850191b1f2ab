"""Finding a protected question in a training row: word for word, or lightly reworded.

Word for word means the same sequence of words and signs anywhere in the row, letter case, spacing and Unicode forms
aside.

Lightly reworded means that, of the question's words (or its reference solution's), the row holds nearly all, most of
the neighbouring pairs, and the numbers beside the words they stood beside. Words that are rare in their benchmark count
for more than common ones. That survives changed case, punctuation and spacing, a synonym here and there and swapped
clauses; another problem of the same template, with other numbers or names, does not pass for the question. The
thresholds were chosen on planted benchmark questions (docs/log.md).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from data_recipes.reading import question_of
from data_recipes.row import Row, normalise

SIGNS = re.compile(r"\w+|[^\w\s]")
WORDS = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")
GROUPED_DIGITS = re.compile(r"(?<=\d),(?=\d{3}\b)")
MIN_WORDS = 8
"""Words of two letters or more; shorter questions are looked for word for word only: too little to tell a rewording
from another question."""
MIN_SOLUTION_WORDS = 20
RARE_PAIRS, COMMON = 12, 200
"""Of each text, so many of its rarest word pairs lead from a row to it; pairs of more texts than `COMMON` do not."""
WORDS_SHARED, PAIRS_SHARED, NUMBERS_SHARED = 0.75, 0.45, 0.85
"""Shares of a text's weight that a row has to hold; of the words, more where fewer than `FULL` of them are telling."""
SOLUTION_MARGIN = 0.1
"""More of both for a reference solution: short programs and workings look alike."""
TELLING, FULL = 5, 12
"""Least number of telling words, ``1 / sum(w^2)`` over the words' shares of the weight: "Write a function to find the
area of a square" has two."""
MIN_STEM = 14
"""A multiple-choice question of fewer words is looked for with its options."""
SPREAD = 1.6
"""The shared words have to stand within this many times the text's length."""
SEQUENCE_KEY = 4
Signs = tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """Why a row was taken for a protected one."""

    item: str
    """Id of the protected row."""
    how: str
    """exact, reworded, or solution (its reference solution occurs in the row)."""
    score: float
    """Share of the protected text's words found, rare ones counting more."""


@dataclass(frozen=True)
class _Text:
    item: str
    how: str
    weights: dict[str, float]  # word -> weight, adding up to 1
    pairs: dict[tuple[str, str], float]  # neighbouring words -> weight, adding up to 1
    num_words: int
    telling: float  # effective number of words
    num_keys: int  # of its pairs that lead to it
    numbers: tuple[tuple[str, str, str], ...]  # (word before, number, word after)


class Protected:
    """An index of protected rows. Building it takes some 100 microseconds a row, asking about as much."""

    def __init__(self, rows: Iterable[Row], near: bool = True) -> None:
        self._sequences: dict[Signs, list[tuple[Signs, str, list[Signs]]]] = defaultdict(list)
        self._whole: dict[Signs, list[str]] = defaultdict(list)
        self._texts: list[_Text] = []
        self._by_pair: dict[tuple[str, str], list[int]] = defaultdict(list)
        texts: list[tuple[str, str, str, list[str]]] = []
        self.size = 0
        for row in rows:
            self.size += 1
            question = question_of(row)
            self._add_sequence(question, row)
            if not near:
                continue
            words = _words(question)
            if len(words) < MIN_STEM:  # "Which of these is true?" is no question without its options
                words = _words(" ".join([question, *map(str, row.meta.get("options", []))]))
            if _enough(words):
                texts.append((row.id, row.task, "reworded", words))
            solution = _words(row.meta.get("solution") or row.target or "")
            if _enough(solution, MIN_SOLUTION_WORDS):
                texts.append((row.id, row.task, "solution", solution))
        self._index(texts)

    def _add_sequence(self, question: str, row: Row) -> None:
        signs = _signs(question)
        words = [sign for sign in signs if sign[0].isalnum()]
        telling = len(words) >= 5 or any(word[0].isdigit() for word in words)
        formula = len(signs) >= 12 and words  # long enough to be told by its signs
        if len(signs) <= SEQUENCE_KEY or not (
            telling and (formula or sum(len(word) > 1 and word.isalpha() for word in words) >= 2)
        ):
            self._whole[signs].append(row.id)  # "Find x." or brackets alone: only as a row's whole question
            return
        options = [_signs(str(option)) for option in row.meta.get("options", [])] if len(words) < MIN_STEM else []
        self._sequences[signs[:SEQUENCE_KEY]].append((signs, row.id, options))

    def _index(self, texts: list[tuple[str, str, str, list[str]]]) -> None:
        pair_rows = Counter(pair for *_, words in texts for pair in set(zip(words, words[1:], strict=False)))
        task_rows = Counter((task, how) for _, task, how, _ in texts)
        word_rows = Counter((task, how, word) for _, task, how, words in texts for word in set(words))
        for item, task, how, words in texts:
            # rare among the texts of its task: the words of a template that all of them share tell nothing
            rows = task_rows[task, how] + 1
            # dict.fromkeys and not set: sums must not depend on the order that string hashing gives in this process
            weights = {word: math.log(rows / word_rows[task, how, word]) + 0.01 for word in dict.fromkeys(words)}
            neighbours = dict.fromkeys(zip(words, words[1:], strict=False))
            pairs = {pair: weights[pair[0]] + weights[pair[1]] for pair in neighbours}
            shares = _shares(weights)
            telling = 1 / sum(share**2 for share in shares.values())
            if telling < TELLING:
                continue
            rarest = sorted(pairs, key=lambda pair: (pair_rows[pair], pair))[:RARE_PAIRS]
            keys = [pair for number, pair in enumerate(rarest) if pair_rows[pair] <= COMMON or number < 4]
            for pair in keys:
                self._by_pair[pair].append(len(self._texts))
            padded = ["", *words, ""]
            numbers = tuple(
                (padded[place - 1], word, padded[place + 1])
                for place, word in enumerate(padded)
                if word and word[0].isdigit()
            )
            text = _Text(item, how, shares, _shares(pairs), len(words), telling, len(keys), numbers)
            self._texts.append(text)

    def find(self, row: Row, near: bool = True, exempt: Callable[[str], bool] = lambda item: False) -> Match | None:
        """Return what makes `row` a copy of a protected one, or None.

        Args:
            near: look for reworded questions too (where the index was made for that).
            exempt: tells of a protected row's id whether copies of it are allowed.
        """
        turns = [turn.content for turn in row.messages + (row.chosen or []) + (row.rejected or [])]
        text = "\n".join([*turns, *map(str, row.meta.get("options", []))])
        exact = self._find_sequence(row, text, exempt)
        return exact or (self._find_reworded(text, exempt) if near and self._texts else None)

    def _find_sequence(self, row: Row, text: str, exempt: Callable[[str], bool]) -> Match | None:
        if self._whole and row.messages:
            for question in (question_of(row), row.question):
                for item in self._whole.get(_signs(question), ()):
                    if not exempt(item):
                        return Match(item, "exact", 1.0)
        signs = _signs(text)
        for start in range(len(signs) - SEQUENCE_KEY + 1):
            for sequence, item, options in self._sequences.get(signs[start : start + SEQUENCE_KEY], ()):
                if signs[start : start + len(sequence)] != sequence or exempt(item):
                    continue
                if sum(_holds(signs, option) for option in options) >= len(options) / 2:
                    return Match(item, "exact", 1.0)
        return None

    def _find_reworded(self, text: str, exempt: Callable[[str], bool]) -> Match | None:
        words = _words(text)
        pairs = list(zip(words, words[1:], strict=False))
        row_pairs = dict.fromkeys(pairs)
        hits: Counter[int] = Counter()
        for pair in row_pairs:
            found = self._by_pair.get(pair)
            if found:
                hits.update(found)
        best: Match | None = None
        for number, shared in hits.items():
            candidate = self._texts[number]
            if shared < max(2, candidate.num_keys // 3):
                continue
            if sum([weight for pair, weight in candidate.pairs.items() if pair in row_pairs]) < PAIRS_SHARED:
                continue
            score = _best_window(candidate, words, pairs)
            margin = SOLUTION_MARGIN if candidate.how == "solution" else 0.0
            enough = WORDS_SHARED + margin + 0.025 * max(FULL - candidate.telling, 0)
            if score >= enough and (best is None or score > best.score) and not exempt(candidate.item):
                best = Match(candidate.item, candidate.how, round(score, 3))
        return best


def _best_window(text: _Text, words: list[str], pairs: list[tuple[str, str]]) -> float:
    """Return the share of a text's words in the stretch of a row that holds most of its pairs; 0 where it is not there.

    A long row holds most words of any short question somewhere; a copy of the question holds them together.
    """
    length = int(SPREAD * text.num_words) + 8
    places = [place for place, pair in enumerate(pairs) if pair in text.pairs]
    first, most, start = 0, -1, 0
    for last in range(len(places)):  # the window with most shared pairs
        while places[last] - places[first] >= length:
            first += 1
        if last - first > most:
            most, start = last - first, max(places[last] + 1 - length, 0)
    window = set(words[start : start + length])
    near = set(pairs[start : start + length])
    if sum([weight for pair, weight in text.pairs.items() if pair in near]) < PAIRS_SHARED:
        return 0.0
    in_place = sum((before, number) in near or (number, after) in near for before, number, after in text.numbers)
    if in_place < NUMBERS_SHARED * len(text.numbers):
        return 0.0
    return sum([weight for word, weight in text.weights.items() if word in window])


def _signs(text: str) -> Signs:
    return tuple(SIGNS.findall(normalise(text)))


def _holds(signs: Signs, part: Signs) -> bool:
    return any(signs[start : start + len(part)] == part for start in range(len(signs) - len(part) + 1))


def _enough(words: list[str], least: int = MIN_WORDS) -> bool:
    return sum(len(word) > 1 and word.isalpha() for word in words) >= least


def _words(text: str) -> list[str]:
    return WORDS.findall(GROUPED_DIGITS.sub("", normalise(text)))


def _shares(weights: dict) -> dict:
    total = sum(weights.values()) or 1.0
    return {key: weight / total for key, weight in weights.items()}
