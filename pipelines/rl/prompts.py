"""Which prompts are answered next: the recipe's shares of the tasks, without those that teach nothing at the moment."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from data_recipes.order import Order, permute


class PromptOrder(Sampler[int]):
    """Prompts generation after generation, each as often as it is answered, as TRL's GRPOTrainer wants them.

    Tasks come in the numbers the recipe asks for. A task's prompts take turns in a random order; one whose answers were
    all right or all wrong is set aside for some generations and asked again after them. What is drawn depends on the
    seed and on the outcomes alone, so a resumed run draws the same.
    """

    def __init__(
        self,
        rows_of: Sequence[Sequence[int]],
        draws: Sequence[int],
        *,
        prompts: int,
        answers: int,
        repeats: int,
        generations: int,
        lag: int,
        set_aside_for: int,
        seed: int,
    ) -> None:
        """Plan.

        Args:
            rows_of: by task, the indices of its prompts.
            draws: by task, its part of an epoch.
            prompts: of a generation.
            answers: to each prompt.
            repeats: micro-batches fed by a generation; each is handed the whole of it.
            lag: generations after which outcomes tell: batches are fetched before the one under way is answered.
            set_aside_for: generations without a prompt that taught nothing; 0: none is set aside.
        """
        self._rows_of, self._seed = rows_of, seed
        self._order = Order(tuple(map(len, rows_of)), (tuple(draws),), seed)
        self._prompts, self._answers, self._repeats, self._generations = prompts, answers, repeats, generations
        self._lag, self._set_aside_for = lag, set_aside_for
        self._outcomes: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._prompts * self._answers * self._repeats * self._generations

    def __iter__(self) -> Iterator[int]:
        turns = [0] * len(self._rows_of)
        for generation in range(self._generations):
            aside = self._aside(generation - self._lag, generation)
            chunk = []
            for task in self._tasks(generation):
                index, turns[task] = self._next(task, turns[task], aside, chunk)
                chunk.append(index)
            for _ in range(self._repeats):
                yield from (index for index in chunk for _ in range(self._answers))

    def _tasks(self, generation: int) -> list[int]:
        positions = np.arange(generation * self._prompts, (generation + 1) * self._prompts)
        epochs, within = np.divmod(positions, len(self._order))
        return [int(self._order.at(int(e), [int(p)])[0][0]) for e, p in zip(epochs, within, strict=True)]

    def _next(self, task: int, turn: int, aside: dict[int, int], chunk: list[int]) -> tuple[int, int]:
        """Return the task's next prompt from `turn` on, and the turn after it; of prompts set aside the first to return
        only where there is no other."""
        rows = self._rows_of[task]
        tried = []
        for number in range(turn, turn + len(rows)):
            past, place = divmod(number, len(rows))
            index = rows[int(permute(np.array([place]), len(rows), self._seed, task, past)[0])]
            if index not in aside and index not in chunk:
                return index, number + 1
            tried.append((index in chunk, aside.get(index, 0), number, index))
        *_, number, index = min(tried)
        return index, number + 1

    def _aside(self, known: int, now: int) -> dict[int, int]:
        """Return prompt -> generation in which it is asked again, from the outcomes of generations up to `known`."""
        found = {index: seen + self._set_aside_for for seen, index in self._outcomes if seen <= known}
        return {index: until for index, until in found.items() if now < until}

    def observe(self, generation: int, taught_nothing: Sequence[int]) -> None:
        """Take in which prompts of a generation had only right or only wrong answers. Repeating it changes nothing."""
        if self._set_aside_for:
            known = set(self._outcomes)
            self._outcomes += sorted({(generation, index) for index in taught_nothing} - known)

    def set_aside(self, generation: int) -> list[float]:
        """Return the share of each task's prompts that is set aside after a generation."""
        aside = self._aside(generation, generation + 1)
        return [sum(index in aside for index in rows) / max(len(rows), 1) for rows in self._rows_of]

    def state(self) -> list[list[int]]:
        """Return the outcomes, as JSON."""
        return [list(one) for one in self._outcomes]

    def restore(self, state: list[list[int]]) -> None:
        """Go on from `state`."""
        self._outcomes = [(generation, index) for generation, index in state]


def lag(micro_batches_a_step: int, micro_batches_a_generation: int) -> int:
    """Return how many generations later outcomes can tell: a step's batches, and one more, are fetched at once."""
    return 1 + math.ceil(micro_batches_a_step / micro_batches_a_generation)
