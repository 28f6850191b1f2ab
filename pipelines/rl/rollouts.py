"""Rollouts on disk: a line a sample, enough to train from it again.

A run that was killed takes up the rollouts it had made; another run can be given them (``grpo.rollouts``), and then
learns from the same completions, with the log-probabilities of the policy that wrote them.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, keep_lines, read_jsonl

FILE = "rollouts.jsonl"


@dataclass(frozen=True)
class Rollout:
    """One sampled answer to a prompt, and what it was worth."""

    generation: int
    """Counted from 0."""
    step: int
    """The first optimiser step that learns from it, counted from 1."""
    task: str
    id: str
    """Of the row."""
    sample: int
    """Its number among the answers to this row in this generation."""
    completion: str
    answer: str | None
    """The answer that the verifiers read."""
    reward: float | None
    """What the verifiers said, before any scaling; None: no answer could be read, or see `problem`."""
    problem: str | None
    """What the verifier did instead of answering."""
    tokens: list[int]
    logprobs: list[float | None] | None
    """Of the tokens, as the engine sampled them; None where it does not say."""
    policy_logprobs: list[float] | None
    """Of the tokens, as the trainer's weights gave them then; None where they were not needed."""
    parts: dict[str, float] = field(default_factory=dict)
    """What the reward is made of, by name, where it is made of several."""
    revision: str | None = None
    """What the reviser made of the critique, where it was asked."""


def numbered(ids: list[str]) -> list[tuple[str, int]]:
    """Return each id with how many equal ones came before it."""
    seen: Counter[str] = Counter()
    places = []
    for one in ids:
        places.append((one, seen[one]))
        seen[one] += 1
    return places


class Rollouts:
    """The file of a run, and those of the run or of another one that can be used instead of generating."""

    def __init__(self, folder: Path, from_generation: int, given: Path | None, first: bool) -> None:
        """Read what there is; the first process alone writes.

        Args:
            from_generation: earlier ones will not be asked for.
            given: another run's file.

        Raises:
            UserError: `given` is missing, or a line of either is no rollout.
        """
        self._path, self._first = folder / FILE, first
        self._own = _read(self._path, from_generation) if self._path.exists() else {}
        self._given = _read(given, from_generation) if given else {}
        self._log: JsonlLog | None = None

    def find(self, generation: int, places: list[tuple[str, int]]) -> tuple[list[Rollout] | None, bool]:
        """Return the rollouts of a generation in the order of `places`, or None where one is missing.

        Beside them, whether they are this run's own, judged already.
        """
        for stored, own in ((self._own, True), (self._given, False)):
            found = [stored.get((generation, *place)) for place in places]
            if None not in found:
                return found, own
        return None, False

    def write(self, rollouts: list[Rollout]) -> None:
        """Keep the rollouts of a generation, instead of any that are there of it or of later ones."""
        if not self._first or not rollouts:
            return
        generation = rollouts[0].generation
        if self._log is None:
            keep_lines(self._path, lambda line: line["generation"] < generation)
            self._log = JsonlLog(self._path)
        for one in rollouts:
            self._log.append(asdict(one))
        self._log.rows.clear()

    def close(self) -> None:
        """Close the file."""
        if self._log:
            self._log.close()


def _read(path: Path, from_generation: int) -> dict[tuple[int, str, int], Rollout]:
    stored = {}
    for number, line in enumerate(read_jsonl(path, torn_line_ok=True), start=1):
        try:
            one = Rollout(**line)
        except TypeError:
            raise UserError(f"{path}, line {number}: not a rollout; delete the file, or name another") from None
        if one.generation >= from_generation:
            stored[one.generation, one.id, one.sample] = one
    return stored
