"""Reward dispersion (RD): how far the rewards of a group disagree.

Source: named in GCPO, arXiv 2605.21801, which gives no formula in any public source; this one is our reconstruction.

    RD = std(r) / (range / 2),    std over n;    for 0/1 rewards with pass rate p: RD = 2 sqrt(p (1 - p))

The divisor is the largest standard deviation that rewards of that range can have, so RD lies in [0, 1].

Degenerate: equal rewards (max == min) give exactly 0, also where their fp32 mean is off. Non-finite rewards are left
out.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


@signal(upper=torch.ones_like, source="named in arXiv 2605.21801; formula reconstructed")
def reward_dispersion(
    rewards: Real[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None, reward_range: float = 1.0
) -> Float[Tensor, " B"]:
    """Standard deviation of a group's rewards over the largest possible one.

    Args:
        rewards: Rewards of the responses.
        mask: Which responses count.
        reward_range: Largest minus smallest reward that can be given. Rewards beyond it make RD exceed 1.

    Returns:
        (B,), in float32 (float64 if ``rewards`` is).

    Raises:
        ValueError: ``reward_range`` is not positive.
    """
    check_range(reward_range)
    if rewards.numel() == 0:
        return groups.promote(rewards).new_zeros(rewards.shape[0])
    valid, live = groups.finite(rewards, mask), groups.live(rewards, mask)
    r, n = torch.where(valid, groups.promote(rewards), 0), groups.count(valid, groups.promote(rewards))
    deviation = torch.where(valid, r - r.sum(-1, keepdim=True) / n, 0)
    # Before the root, which has no gradient at 0.
    variance = torch.where(live, deviation.square().sum(-1) / n.squeeze(-1), 1)
    return torch.where(live, variance.sqrt() / (reward_range / 2), 0.0)


def check_range(reward_range: float) -> None:
    """Make sure that a reward range can divide."""
    if not reward_range > 0:
        raise ValueError(
            f"reward_range must be positive, found {reward_range}: pass the largest minus smallest reward."
        )
