"""pass@k: how likely one of k samples solves a problem, estimated without bias from n samples."""

from collections import defaultdict
from math import comb

from eval.benchmarks import Answered, Metric
from eval.statistics import bootstrap_interval

SHOWN = (1, 10, 100)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return 1 - C(n - c, k) / C(n, k): equation 1 of Chen et al. 2021 (arXiv 2107.03374).

    Args:
        n: samples of the problem, at least k.
        c: how many of them are right.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples, {c} right")
    return 1 - comb(n - c, k) / comb(n, k)


def pass_at_k_metrics(num_samples: int, answered: list[Answered]) -> dict[str, Metric]:
    """Return pass@1, pass@10, pass@100 and pass@`num_samples`, as far as there are samples; of one sample nothing.

    The interval is a bootstrap over the problems. An unparsed sample is a wrong one. Problems with fewer than k samples
    are left out of pass@k.
    """
    if num_samples < 2:
        return {}
    right: dict[str, list[bool]] = defaultdict(list)
    for one in answered:
        right[one.row.id].append(one.verdict.score == 1.0)
    metrics = {}
    for k in sorted({k for k in (*SHOWN, num_samples) if k <= num_samples}):
        values = [pass_at_k(len(one), sum(one), k) for one in right.values() if len(one) >= k]
        if values:
            low, high = bootstrap_interval(values, _mean)
            metrics[f"pass@{k}"] = Metric(_mean(values), low, high, n=len(values))
    return metrics


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
