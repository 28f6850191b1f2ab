"""A preference model that a CPU trains in milliseconds: what labels are worth is measured on it, hundreds of times.

Our design, the cheap stand-in for the reward model that arXiv 2410.19133 trains for each mixture of labels: the
reward of an answer is linear in ten features of it and its prompt, and its weights are those of a logistic regression
on the differences (Bradley-Terry). What it finds of a pair's labels is what these features show; a real reward model
sees more.
"""

from collections.abc import Sequence
from math import log1p

import numpy as np

from pipelines.routing.features import entities, rouge_l, words
from pipelines.routing.pairs import Pair

RIDGE = 0.01
"""Weight of |w|^2 / 2 beside the mean loss, features scaled to a mean square of one."""
STEPS = 100
"""Of the majoriser below; on LLMBar's pairs weights stand still after them to fifteen digits, after 30 to four."""


def _answer(prompt: str, answer: str) -> list[float]:
    asked, said = words(prompt), words(answer)
    of_asked, of_said = set(asked), set(said)
    common = len(of_asked & of_said)
    names, named = entities(prompt), entities(answer)
    lines = [line for line in answer.splitlines() if line.strip()]
    return [
        log1p(len(said)),
        common / max(1, len(of_asked)),
        common / max(1, len(of_said)),
        rouge_l(asked, said),
        len(names & named) / max(1, len(names)),
        log1p(len(named)),
        len(of_said) / max(1, len(said)),
        log1p(len(lines)),
        sum(map(len, said)) / max(1, len(said)),
        float(answer.rstrip().endswith("?")),
    ]


def differences(pairs: Sequence[Pair]) -> np.ndarray:
    """Return (pairs, 10): the features of answer a less those of answer b, each scaled to a mean square of one."""
    table = np.array([np.subtract(_answer(one.prompt, one.a), _answer(one.prompt, one.b)) for one in pairs])
    scale = np.sqrt((table**2).mean(axis=0))
    return table / np.where(scale > 0, scale, 1)


def signs(labels: Sequence[str]) -> np.ndarray:
    """Return (n,): 1 where answer a is preferred, -1 where b is."""
    return np.where(np.array(labels) == "a", 1.0, -1.0)


def fitted(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the (m, k) weights of m logistic regressions on the same (n, k) differences with (m, n) labels, 1 or -1.

    Minimises the mean of log(1 + exp(-label * difference.w)) + RIDGE / 2 |w|^2. The Hessian is bounded by that at
    zero, so steps with its inverse never overshoot (Böhning and Lindsay 1988), and it is the same for all m.
    """
    n, k = table.shape
    step = np.linalg.inv(table.T @ table / (4 * n) + RIDGE * np.eye(k))
    weights = np.zeros((len(labels), k))
    for _ in range(STEPS):
        missed = labels * _sigmoid(-labels * (weights @ table.T))  # (m, n)
        weights += (missed @ table / n - RIDGE * weights) @ step
    return weights


def preferred(table: np.ndarray, weights: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return (m, n): the probability that each of m models gives the answer that (n,) gold labels prefer."""
    return _sigmoid(gold * (weights @ table.T))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))
