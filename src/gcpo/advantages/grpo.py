"""GRPO: rewards standardised within the group.

Source: Shao et al., DeepSeekMath, arXiv 2402.03300; epsilon and the Bessel-corrected deviation as in TRL.

    A_i = (r_i - mean r) / (std r + eps)

Degenerate: a group whose rewards are all equal gives exactly 0 (the formula alone does not: the fp32 mean of eight 0.3
is not 0.3); a response that is masked out, or whose reward is not finite, gives 0 and is left out of mean and std.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups


def grpo(
    rewards: Float[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None, eps: float = 1e-4
) -> Float[Tensor, "B G"]:
    """Rewards minus the group's mean over the group's standard deviation, (B, G)."""
    r, valid = groups.promote(rewards), groups.finite(rewards, mask)
    advantages = (r - groups.mean(r, valid)) / (groups.std(r, valid) + eps)
    return torch.where(valid & groups.live(r, valid).unsqueeze(-1), advantages, 0.0)
