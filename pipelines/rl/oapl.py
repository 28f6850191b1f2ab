"""OAPL, KARL's off-policy objective (2603.05218; 2602.19362): regress the policy's log-ratio on the advantage.

Rollouts of the reference policy are the data; there are no importance weights and nothing is clipped. After a pass over
a large batch the reference becomes the policy and generates the next one.
"""

import torch
from torch import Tensor


def optimal_value(rewards: Tensor, beta: float) -> Tensor:
    """Return V* = beta ln(mean exp(r / beta)) over the samples of each prompt.

    It is their maximum as beta -> 0 and their mean as beta -> infinity.

    Args:
        rewards: (prompts, samples); NaN: no reward, not counted.

    Returns:
        (prompts,); NaN where a prompt has no reward at all.
    """
    found = ~rewards.isnan()
    scaled = torch.where(found, rewards / beta, -torch.inf)
    value = beta * (torch.logsumexp(scaled, 1) - found.sum(1).to(rewards.dtype).log())
    return torch.where(found.any(1), value, torch.nan)


def squared_residual(logp: Tensor, reference_logp: Tensor, rewards: Tensor, values: Tensor, beta: float) -> Tensor:
    """Return (beta ln(pi / pi_ref) - (r - V*))^2 of each sample.

    Args:
        logp: (n,) log-probability of the whole completion, in nats: a sum, not a mean, over its tokens.
    """
    return (beta * (logp - reference_logp) - (rewards - values)) ** 2
