"""Reward spread: the distance between the best and the worst reward of a group.

Source: this project; the plainest dispersion there is.

    spread = (max r - min r) / range

For 0/1 rewards it says only whether the group is live. One outlier decides it; ``reward_quantile_dispersion`` is the
one for heavy tails.

Degenerate: one response, or equal rewards, give 0. Non-finite rewards are left out.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal
from gcpo.signals.reward_dispersion import check_range


@signal(upper=torch.ones_like, source="this project")
def reward_spread(
    rewards: Real[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None, reward_range: float = 1.0
) -> Float[Tensor, " B"]:
    """Largest minus smallest reward of a group over the largest possible.

    Args:
        rewards: Rewards of the responses.
        mask: Which responses count.
        reward_range: Largest minus smallest reward that can be given. Rewards beyond it make the spread exceed 1.

    Returns:
        (B,), in float32 (float64 if ``rewards`` is).

    Raises:
        ValueError: ``reward_range`` is not positive.
    """
    check_range(reward_range)
    low, high = groups.extremes(groups.promote(rewards), mask)
    return torch.where(high > low, (high - low) / reward_range, 0)
