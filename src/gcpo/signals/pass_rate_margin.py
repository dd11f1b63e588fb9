"""Pass-rate margin: how far a group is from being all right or all wrong.

Source: this project; the filter for pass rates strictly between 0 and 1 of DAPO (arXiv 2503.14476), made gradual.

    margin = 2 min(p, 1 - p),    p = share of responses with a reward of at least the threshold

It is 1 at p = 1/2. Unlike reward dispersion it does not see how far rewards lie above or below.

Degenerate: one response, or equal rewards, give 0. Non-finite rewards are left out.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


@signal(upper=torch.ones_like, source="this project; cf. arXiv 2503.14476")
def pass_rate_margin(
    rewards: Real[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None, threshold: float = 0.5
) -> Float[Tensor, " B"]:
    """Distance of a group's pass rate from 0 and 1, twice over.

    Args:
        rewards: Rewards of the responses.
        mask: Which responses count.
        threshold: Least reward of a pass.

    Returns:
        (B,) in [0, 1], in float32 (float64 if ``rewards`` is).
    """
    valid = groups.finite(rewards, mask)
    r = groups.promote(rewards)
    p = ((r >= threshold) & valid).sum(-1) / groups.count(valid, r).squeeze(-1)
    return 2 * torch.minimum(p, 1 - p)
