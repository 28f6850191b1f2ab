"""Who judges the judge: precision and recall of critique units on responses whose truth is known.

A unit is true where the response is wrong and, if the first wrong step is known, the unit's sentences include it; a
wrong response is found where one of its units is true. Judging a response by its label alone says less than a known
step does: any complaint about a wrong response then counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.statistics import Items, share
from pipelines.critique.units import Unit


@dataclass(frozen=True)
class Known:
    """What is known of a response."""

    right: bool
    wrong_sentence: int | None
    """The sentence, from 1, that is the first wrong step, where that is known."""
    cluster: str
    """Names the question: responses to one question hang together."""

    def is_true(self, unit: Unit) -> bool:
        """Tell whether a unit is borne out."""
        if self.right:
            return False
        if self.wrong_sentence is None:
            return True
        return unit.first_sentence <= self.wrong_sentence <= unit.last_sentence


def quality(critiques: Sequence[tuple[Known, Sequence[Unit]]]) -> dict[str, dict[str, float | int]]:
    """Return precision (of units) and recall (of wrong responses), each with its 95 % interval and number.

    Shares with Wilson's interval at the effective number of items, clustered by question; one of nothing is left out.
    """
    units = [(known.cluster, known.is_true(unit)) for known, found in critiques for unit in found]
    wrong = [
        (known.cluster, any(known.is_true(unit) for unit in found)) for known, found in critiques if not known.right
    ]
    return {name: _estimate(scored) for name, scored in (("precision", units), ("recall", wrong)) if scored}


def accuracy(verdicts: Sequence[tuple[Known, str]]) -> dict[str, float | int]:
    """Return the share of verdicts that are right, with its interval."""
    return _estimate([(known.cluster, (verdict == "correct") == known.right) for known, verdict in verdicts])


def _estimate(scored: Sequence[tuple[str, bool]]) -> dict[str, float | int]:
    keys = [("", str(number)) for number in range(len(scored))]
    clusters = {str(number): cluster for number, (cluster, _) in enumerate(scored)}
    found = share(Items.of(keys, clusters, micro=True), np.array([float(true) for _, true in scored]))
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
