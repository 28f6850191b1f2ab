"""What can be said of a preference pair without a model, and the tags that it becomes (arXiv 2410.19133).

The paper's lexical features, each in three bins with bounds 0, 0.33, 0.67 and 1; lengths as percentile ranks among
the pairs at hand. Two differ (our design): token F1 stands for BERTScore, which needs a model (its length-weighted
form is left out), and the cosine is of word counts. The paper's other half, metadata that a language model tags
(safety concern, complexity of the intent, domain), is left out: it would need a language model that the paper's
prompts fit.
"""

import re
from collections import Counter
from collections.abc import Sequence
from math import sqrt

import numpy as np

from pipelines.routing.pairs import Pair

SIMILARITIES = ("token_f1", "rouge_l", "cosine", "entity_similarity")
"""Of the two answers, in [0, 1]."""
LENGTHS = ("length_difference", "prompt_length", "shorter_length", "longer_length")
"""In words."""
FEATURES = (*SIMILARITIES, *LENGTHS)
BOUNDS = (0.33, 0.67)
BINS = ("low", "middle", "high")
TAGS = tuple(f"{feature} {name}" for feature in FEATURES for name in BINS)


def words(text: str) -> list[str]:
    """Return the words of a text, case folded."""
    return re.findall(r"\w+", text.casefold())


def _f1(common: int, first: int, second: int) -> float:
    return 2 * common / (first + second) if first + second else 1.0


def token_f1(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the F1 of two lists of words as bags; two empty ones are alike."""
    return _f1((Counter(first) & Counter(second)).total(), len(first), len(second))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return its length, by the bit-parallel recurrence (Hyyrö 2004): a bit of ``row`` for each word of `first`."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & full
    return len(first) - row.bit_count()


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """Return ROUGE-L's F1 (Lin 2004) of two lists of words, without stemming; two empty ones are alike."""
    return _f1(longest_common_subsequence(first, second), len(first), len(second))


def cosine(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the cosine of the word counts; two empty lists are alike."""
    one, other = Counter(first), Counter(second)
    if not one or not other:
        return float(not one and not other)
    dot = sum(count * other[word] for word, count in one.items())
    return dot / sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))


def entities(text: str) -> set[str]:
    """Return the names and numbers of a text: words with a capital that follow another word, and digits; case folded.

    Our design: the paper names the feature but not how entities are found. A sentence's first word is none.
    """
    names = re.findall(r"(?<=[\w,;] )[A-Z]\w+", text)
    return {name.casefold() for name in names} | set(re.findall(r"\d+(?:[.,]\d+)*", text))


def entity_similarity(first: str, second: str) -> float:
    """Return the Jaccard similarity of two texts' entities; two texts without any are alike."""
    one, other = entities(first), entities(second)
    return len(one & other) / len(one | other) if one | other else 1.0


def features(pair: Pair) -> list[float]:
    """Return the values of `FEATURES`; lengths in words."""
    a, b = words(pair.a), words(pair.b)
    shorter, longer = sorted((len(a), len(b)))
    alike = (token_f1(a, b), rouge_l(a, b), cosine(a, b), entity_similarity(pair.a, pair.b))
    return [*alike, longer - shorter, len(words(pair.prompt)), shorter, longer]


def percentile_ranks(values: np.ndarray) -> np.ndarray:
    """Return for (n,) values the share of them below each, equal ones counted half; in (0, 1)."""
    from scipy.stats import rankdata

    return (rankdata(values) - 0.5) / len(values)


def tagged(pairs: Sequence[Pair]) -> np.ndarray:
    """Return the (pairs, tags) matrix of zeros and ones: one tag of `TAGS` of each feature; ranks are among `pairs`."""
    values = np.array([features(pair) for pair in pairs])
    for column in range(len(SIMILARITIES), len(FEATURES)):
        values[:, column] = percentile_ranks(values[:, column])
    bins = np.digitize(values, BOUNDS)  # (pairs, features) 0, 1 or 2
    return np.eye(len(BINS))[bins].reshape(len(pairs), len(TAGS))
