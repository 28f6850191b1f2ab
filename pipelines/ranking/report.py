"""What is said of a trained reward model: accuracy by task and calibration, on pairs it has not seen."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.calibration import calibration_bins, expected_calibration_error
from eval.statistics import Items, share
from pipelines.ranking.pairs import Pair


def results_of(train: Sequence[Pair], heldout: Sequence[Pair], rewards: np.ndarray) -> dict[str, Any]:
    """Return the stage's results.json.

    A pair counts as right where chosen has the higher reward; a tie is none. Intervals are 95 %, clustered by question;
    the accuracy of ``all`` gives every task the same weight, its other figures every pair. Chances are
    sigmoid(r_first - r_second), where a hash of the row's id says which answer is first: chosen is in about half of the
    pairs, so the curve covers both sides of 1/2.

    Args:
        rewards: (n, 2) of the held-out pairs, chosen and rejected.
    """
    trained, measured = Counter(pair.task for pair in train), Counter(pair.task for pair in heldout)
    right = (rewards[:, 0] > rewards[:, 1]).astype(float)
    of_task = np.array([pair.task for pair in heldout])
    by_task = {}
    for task in trained:
        by_task[task] = {"train_pairs": trained[task], "heldout_pairs": measured[task]}
        if measured[task]:
            places = np.flatnonzero(of_task == task)
            by_task[task] |= _measured([heldout[place] for place in places], right[places], rewards[places])
    return {
        "train_pairs": len(train),
        "heldout_pairs": len(heldout),
        "all": _measured(heldout, right, rewards) if heldout else {},
        "tasks": by_task,
        "calibration": [asdict(one) for one in _bins(heldout, rewards)] if heldout else [],
    }


def _measured(pairs: Sequence[Pair], right: np.ndarray, rewards: np.ndarray) -> dict[str, Any]:
    clusters = {pair.id: f"{pair.task}/{pair.group}" for pair in pairs}
    items = Items.of([(pair.task, pair.id) for pair in pairs], clusters, micro=False)
    return {
        "accuracy": asdict(share(items, right)),
        "margin": float((rewards[:, 0] - rewards[:, 1]).mean()),
        "expected_calibration_error": expected_calibration_error(_bins(pairs, rewards)),
    }


def chosen_is_first(row_id: str) -> bool:
    """Tell whether a pair is presented with its chosen answer first: a coin that the row's id decides."""
    return hashlib.sha256(row_id.encode()).digest()[0] % 2 == 0


def _bins(pairs: Sequence[Pair], rewards: np.ndarray) -> list:
    first = np.array([chosen_is_first(pair.id) for pair in pairs])
    margins = np.where(first, 1, -1) * (rewards[:, 0] - rewards[:, 1])
    return calibration_bins(np.exp(-np.logaddexp(0, -margins)), first)
