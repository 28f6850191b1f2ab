"""Advantages of judged rollouts, never mixing the tasks' reward scales; GRPO-S weights.

A sample without a reward (NaN: its verifier failed, or no answer could be read) takes no part: the others' advantages
are those of a batch that never had it.
"""

from typing import Literal

import torch
from torch import Tensor

Scaling = Literal["group", "batch", "none"]


def group_advantages(
    rewards: Tensor, num_generations: int, task_ids: Tensor, scale: Scaling = "group", epsilon: float = 1e-4
) -> Tensor:
    """Return (r - mean of its group) / (std + epsilon), GRPO's advantage (2402.03300, section 4.1.2).

    Standard deviations are those of samples (n - 1), as in TRL.

    Args:
        rewards: (n,), group after group; NaN: no reward.
        num_generations: samples of a group, which are answers to one prompt.
        task_ids: (n,) whole numbers.
        scale: whose standard deviation is divided by: the group's, that of all samples of the same task, or none's.

    Returns:
        (n,); 0 where there is no reward.
    """
    groups = rewards.reshape(-1, num_generations)
    advantages = (groups - groups.nanmean(1, keepdim=True)).reshape(-1)
    if scale == "group":
        advantages = advantages / (_deviation(groups).repeat_interleave(num_generations) + epsilon)
    elif scale == "batch":
        for task in task_ids.unique():
            of_task = task_ids == task
            advantages[of_task] = advantages[of_task] / (_deviation(rewards[of_task][None]) + epsilon)
    return advantages.nan_to_num(0.0)


def _deviation(rewards: Tensor) -> Tensor:
    """Return the samples' standard deviation of each row of (m, n), without NaN; 0 for fewer than two."""
    counts = (~rewards.isnan()).sum(1)
    squares = ((rewards - rewards.nanmean(1, keepdim=True)) ** 2).nansum(1)
    return (squares / (counts - 1).clamp(min=1)).sqrt()


def undecided(rewards: Tensor) -> Tensor:
    """Return (prompts,) booleans: the prompt's samples have different rewards, so something can be learnt from them.

    Args:
        rewards: (prompts, samples); NaN: no reward, not counted.
    """
    low, high = rewards.nan_to_num(torch.inf).amin(1), rewards.nan_to_num(-torch.inf).amax(1)
    return low < high


def data_hardness(distances: Tensor) -> Tensor:
    """Return sigmoid(d_i) / sigmoid(mean d) of GRPO-S (DR-IRL, 2503.18991): harder data gets the larger weight.

    Args:
        distances: (n,) of a task's demonstrations from the policy's answers, 1 - similarity. The paper's text and its
            formula disagree on which end is hard; ours: unlike answers are.
    """
    return torch.sigmoid(distances) / torch.sigmoid(distances.mean())


def model_responsiveness(gaps: Tensor, tau: float) -> Tensor:
    """Return sigmoid(mean of the gaps near their mean) / sigmoid(mean gap) of GRPO-S, a number for a task.

    Args:
        gaps: (n,) reward of the demonstration less that of the policy's answer.
        tau: gaps whose squared distance from the mean exceeds it are left out; none is if all would be.
    """
    mean = gaps.mean()
    near = (gaps - mean) ** 2 <= tau
    return torch.sigmoid(gaps[near].mean() if near.any() else mean) / torch.sigmoid(mean)
