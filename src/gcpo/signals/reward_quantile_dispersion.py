"""Reward quantile dispersion: how far the middle half of a group's rewards spreads.

Source: the interquartile range, a dispersion that outliers do not move; for rewards with heavy tails (reward models).

    IQR = (Q_{3/4}(r) - Q_{1/4}(r)) / range,    quantiles interpolated linearly

For 0/1 rewards it is blind to pass rates below 1/4 and above 3/4; ``reward_dispersion`` is the one for these.

Degenerate: one response, or equal rewards, give 0. Non-finite rewards are left out.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal
from gcpo.signals.reward_dispersion import check_range


@signal(upper=torch.ones_like, source="interquartile range; this project")
def reward_quantile_dispersion(
    rewards: Real[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None, reward_range: float = 1.0
) -> Float[Tensor, " B"]:
    """Interquartile range of a group's rewards.

    Args:
        rewards: Rewards of the responses.
        mask: Which responses count.
        reward_range: What the range is divided by: the largest minus the smallest reward, or, where that is not
            bounded, a typical spread.

    Returns:
        (B,), in float32 (float64 if ``rewards`` is).

    Raises:
        ValueError: ``reward_range`` is not positive.
    """
    check_range(reward_range)
    if rewards.numel() == 0:
        return groups.promote(rewards).new_zeros(rewards.shape[0])
    r = groups.promote(rewards)
    known = r.masked_fill(~groups.finite(r, mask), torch.nan)
    low, high = known.nanquantile(torch.tensor([0.25, 0.75], dtype=r.dtype, device=r.device), dim=-1)
    return torch.where(groups.live(r, mask), (high - low) / reward_range, 0)
