"""How much would a human label of this pair gain? The performance-prediction model of arXiv 2410.19133.

Candidate mixtures of labels (people's for a random part of the pairs, a model's for the rest) are each trained on and
scored; a regression predicts the score from the counts of human-labelled pairs by tag; the gain of a pair is what its
tags add to the prediction. The paper's linear and quadratic models are here; its gradient-boosted trees are left out
(a library more), and so are its searches over whole mixtures (swaps, gradients): the k pairs of the largest gain are
taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from data_recipes.errors import UserError
from data_recipes.files import fingerprint
from pipelines.routing import proxy
from pipelines.routing.features import TAGS
from pipelines.routing.pairs import Pair

Form = Literal["linear", "quadratic"]
FORMS: tuple[Form, ...] = get_args(Form)
MIXTURES = 400
"""Candidate mixtures."""
FOLDS = 5
"""Parts of the pairs, by prompt: a mixture is scored on each by a proxy trained on the other four (our design)."""
TRAIN_SHARE = 0.8
"""Of the mixtures; the prediction is checked on the others (the paper's 80/20)."""
FEWEST = 40
"""Fewest pairs with a human label from which a gain is learned (our design)."""
RIDGES = np.logspace(-4, 2, 13)


@dataclass(frozen=True)
class Gain:
    """A fitted prediction of a mixture's score from its counts by tag."""

    form: Form
    weights: np.ndarray
    """(terms,) of the counts, and for the quadratic form of their products; the constant is `base`."""
    base: float
    ridge: float
    r2: float
    """Share of variance explained on the mixtures not fitted; below zero: worse than their mean."""
    spearman: float
    """Rank correlation of predicted and measured scores, on the same."""
    beyond_budget: float
    """R2 against a parabola in the number of human labels instead of the mean: what the tags foretell beyond how many
    labels there are, which is what routing lives on (our design)."""

    def predict(self, counts: np.ndarray) -> np.ndarray:
        """Return the predicted scores of (n, tags) counts."""
        return self.base + terms(counts, self.form) @ self.weights

    def of(self, tags: np.ndarray) -> np.ndarray:
        """Return the gain of each of (n, tags) pairs: f(x) - f(0), which for the linear form is coef.x."""
        return terms(tags, self.form) @ self.weights


def terms(counts: np.ndarray, form: Form) -> np.ndarray:
    """Return (n, terms): the counts, and for the quadratic form all products of two of them."""
    if form == "linear":
        return counts
    one, other = np.triu_indices(counts.shape[1])
    return np.concatenate([counts, counts[:, one] * counts[:, other]], axis=1)


def fit(counts: np.ndarray, scores: np.ndarray, form: Form, seed: int = 0) -> Gain:
    """Fit the scores of mixtures by ridge regression on their counts, 80 % of them, and check it on the others.

    The ridge is the one of the smallest leave-one-out error on the 80 % (our design).

    Args:
        counts: (mixtures, tags) human-labelled pairs by tag.
        scores: (mixtures,)

    Raises:
        ValueError: the scores do not vary, so that nothing can be predicted.
    """
    order = np.random.default_rng(seed).permutation(len(scores))
    cut = round(TRAIN_SHARE * len(scores))
    train, test = order[:cut], order[cut:]
    if np.ptp(scores[train]) < 1e-12 or np.ptp(scores[test]) < 1e-12:
        raise ValueError("the scores do not vary")
    x, y = terms(counts[train], form), scores[train]
    centre, scale = x.mean(axis=0), x.std(axis=0)
    kept = scale > 0
    scale = np.where(kept, scale, 1)
    left, sizes, right = np.linalg.svd((x - centre) / scale, full_matrices=False)
    middle = y.mean()
    seen = left.T @ (y - middle)

    def left_out_error(ridge: float) -> float:
        shrunk = sizes**2 / (sizes**2 + ridge * cut)
        leverage = (left**2) @ shrunk + 1 / cut
        return float((((y - middle - left @ (shrunk * seen)) / np.maximum(1 - leverage, 1e-9)) ** 2).mean())

    ridge = float(min(RIDGES, key=left_out_error))
    weights = np.where(kept, right.T @ (sizes / (sizes**2 + ridge * cut) * seen) / scale, 0)
    base = float(middle - centre @ weights)
    predicted = base + terms(counts[test], form) @ weights
    budgets = counts.sum(axis=1) / max(1.0, counts.sum(axis=1).max())
    by_budget = np.polynomial.Polynomial.fit(budgets[train], y, 2, domain=[0, 1])(budgets[test])

    def r2(against: np.ndarray) -> float:
        return 1 - float(((scores[test] - predicted) ** 2).sum() / ((scores[test] - against) ** 2).sum())

    return Gain(form, weights, base, ridge, r2(scores[test].mean()), _spearman(predicted, scores[test]), r2(by_budget))


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import rankdata

    if np.ptp(one) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def mixtures(size: int, number: int, seed: int) -> np.ndarray:
    """Return (number, size): whether each mixture's label of each pair is people's; budgets are uniform in 0..size."""
    generator = np.random.default_rng(seed)
    budgets = generator.integers(0, size + 1, number)
    ranks = np.argsort(generator.random((number, size)), axis=1).argsort(axis=1)
    return ranks < budgets[:, None]


def folds_of(pairs: Sequence[Pair]) -> np.ndarray:
    """Return (pairs,) the fold of each, the same for all pairs of a prompt."""
    return np.array([int(fingerprint(pair.prompt), 16) % FOLDS for pair in pairs])


def mixture_scores(
    table: np.ndarray, human: np.ndarray, ai: np.ndarray, folds: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Return (mixtures,): the mean probability that the proxy gives people's label of a pair it was not trained on.

    Our design: the paper scores on RewardBench; these are the labelled pairs themselves, cross-fitted, and a
    probability tells mixtures apart more finely than an accuracy does.

    Args:
        table: (pairs, k) differences of features.
        human, ai: (pairs,) labels of 1 and -1.
        folds: (pairs,)
        asked: (mixtures, pairs) where the label is people's.
    """
    labels = np.where(asked, human, ai)
    scores = np.zeros(len(asked))
    for fold in np.unique(folds):
        held = folds == fold
        weights = proxy.fitted(table[~held], labels[:, ~held])
        scores += proxy.preferred(table[held], weights, human[held]).sum(axis=1)
    return scores / len(human)


def learned(
    pairs: Sequence[Pair], tags: np.ndarray, table: np.ndarray, forms: Sequence[Form], seed: int, number: int = MIXTURES
) -> dict[Form, Gain]:
    """Return the gain in each form, learned from pairs that people have labelled.

    Args:
        tags: (pairs, tags) of `pipelines.routing.features.tagged`.
        table: (pairs, k) of `pipelines.routing.proxy.differences`.
        number: candidate mixtures.

    Raises:
        UserError: the pairs are too few or too much alike to learn from.
    """
    if len(pairs) < FEWEST:
        raise UserError(
            f"{len(pairs)} pairs have a human label, and a gain is learned from {FEWEST} at least;"
            " have some labelled that are drawn with --random"
        )
    human, ai = proxy.signs([pair.human for pair in pairs]), proxy.signs([pair.ai for pair in pairs])
    folds = folds_of(pairs)
    if len(np.unique(folds)) == 1:
        raise UserError("the pairs with a human label share one prompt, or nearly so; have pairs of others labelled")
    if (human == ai).all():
        raise UserError(
            f"people and the model agree on all {len(pairs)} pairs that have a human label: nothing shows where a"
            " human label gains; have more labelled with --random"
        )
    asked = mixtures(len(pairs), number, seed)
    scores = mixture_scores(table, human, ai, folds, asked)
    counts = asked @ tags
    assert counts.shape == (number, len(TAGS)), counts.shape
    try:
        return {form: fit(counts, scores, form, seed) for form in forms}
    except ValueError:
        raise UserError("the proxy model's score is the same for all labels; have more pairs labelled") from None
