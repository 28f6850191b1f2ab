"""Made-up preference pairs on which the model's label is wrong in one tag and nowhere else."""

import random

from pipelines.routing.pairs import Pair


def made_pairs(number: int, seed: int = 0) -> list[Pair]:
    """Return pairs of which people prefer the shorter answer, and the model the longer where they differ much.

    In two thirds of the pairs both answers are about as long, and the one with more of the prompt's words is preferred
    by both. In the others one answer is five times as long as the other (the highest third of ``length_difference``).
    """
    draw = random.Random(seed)
    vocabulary = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("an", "el", "ir", "op", "um")]
    pairs = []
    for number_of in range(number):
        asked = draw.sample(vocabulary, 8)

        def answer(shared: int, length: int, asked=asked) -> str:
            return " ".join(draw.sample(asked, shared) + draw.choices(vocabulary, k=length - shared))

        if number_of % 3 == 0:
            texts = [answer(3, 8), answer(3, 40 + draw.randrange(8))]
            human, ai = "a", "b"
        else:
            texts = [answer(6, 12 + draw.randrange(4)), answer(1, 12 + draw.randrange(4))]
            human = ai = "a"
        if draw.random() < 0.5:
            texts.reverse()
            human, ai = ("b" if label == "a" else "a" for label in (human, ai))
        pairs.append(Pair(id=f"p{number_of}", prompt=" ".join(asked), a=texts[0], b=texts[1], ai=ai, human=human))
    return pairs
