"""Duplicates among training rows, found as the rows go by: the first of several stays."""

import re

from data_recipes.recipe import NearDuplicates
from data_recipes.row import normalise

WORDS = re.compile(r"\w+")
SHINGLE = 3


class Seen:
    """The prompts of a task and the texts of all tasks so far, as 64-bit hashes."""

    def __init__(self) -> None:
        self._asked: set[int] = set()
        self._prompts: set[int] = set()
        self._texts: set[int] = set()

    def next_task(self) -> None:
        """Forget the prompts: another task may ask the same question in its own way."""
        self._asked, self._prompts = set(), set()

    def is_new_question(self, prompt: int) -> bool:
        """Tell whether the task had no row with this prompt yet, kept or not; from now on it had."""
        new = prompt not in self._asked
        self._asked.add(prompt)
        return new

    def repeats(self, prompt: int, text: int) -> str | None:
        """Say what a row repeats of those kept, or None."""
        if prompt in self._prompts:
            return "duplicate question"
        return "duplicate row" if text in self._texts else None

    def keep(self, prompt: int, text: int) -> None:
        """Remember a row that stays; one that is removed leaves its place to a later one."""
        self._prompts.add(prompt)
        self._texts.add(text)


class NearSeen:
    """Rows so far by MinHash signature over word triples; two rows that differ in a number are never near duplicates.

    Signatures and their banding are rensa's. Its estimate of the Jaccard similarity has a standard error of about
    ``sqrt(J (1 - J) / permutations)``: 0.035 at a similarity of 0.8 with 128.
    """

    def __init__(self, settings: NearDuplicates) -> None:
        from rensa import RMinHashLSH

        self._settings = settings
        self._bands = next(bands for bands in (32, 16, 8) if settings.permutations % bands == 0)
        self._lsh = RMinHashLSH(settings.threshold, settings.permutations, self._bands)
        self._signatures: list = []
        self._numbers: list[tuple[str, ...]] = []
        self._ids: list[str] = []

    def near(self, row_id: str, text: str) -> tuple[str, float] | None:
        """Return (id, similarity) of the earlier row that `text` nearly repeats, or None; it is then remembered."""
        from rensa import RMinHash

        words = WORDS.findall(normalise(text))
        numbers = tuple(sorted(word for word in words if word[0].isdigit()))
        triples = {" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
        signature = RMinHash(self._settings.permutations, 1)
        signature.update(sorted(triples))
        for other in sorted(self._lsh.query(signature)):
            similarity = signature.jaccard(self._signatures[other])
            if similarity >= self._settings.threshold and numbers == self._numbers[other]:
                return self._ids[other], round(similarity, 3)
        self._lsh.insert(len(self._ids), signature)
        self._signatures.append(signature)
        self._numbers.append(numbers)
        self._ids.append(row_id)
        return None
