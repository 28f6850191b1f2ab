"""Losses of reward margins r_chosen - r_rejected. P = sigmoid(margin) is the modelled chance that chosen is better."""

from math import log

from torch import Tensor
from torch.nn.functional import logsigmoid


def ranking_loss(margins: Tensor) -> Tensor:
    """Return -log P: the Bradley-Terry loss, as TRL has it.

    Args:
        margins: (n,) rewards.

    Returns:
        (n,) nats.
    """
    return -logsigmoid(margins)


def focal_ranking_loss(margins: Tensor, gamma: float) -> Tensor:
    """Return -(1 - 2 max(0, P - 1/2))^gamma log P: pairs that are ranked right already weigh less and less.

    InternLM2's loss (2403.17297), which MultiCritique (2410.15287) trains its reward model with; both from memory, and
    without InternLM2's barrier that keeps rewards in [-5, 5] (TRL's center_rewards_coefficient keeps them near 0).
    Above 1/2 the factor is 2 (1 - P) = 2 sigmoid(-margin), and its power is taken of the logarithm: no margin is so
    large that the gradient is not finite.

    Args:
        margins: (n,) rewards.
        gamma: 0: the ranking loss.

    Returns:
        (n,) nats.
    """
    log_factor = log(2) + logsigmoid(-margins.clamp(min=0))
    return (gamma * log_factor).exp() * ranking_loss(margins)
