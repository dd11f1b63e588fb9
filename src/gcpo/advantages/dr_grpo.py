"""Dr. GRPO: rewards centred within the group, not scaled.

Source: Liu et al., Understanding R1-Zero-like training, arXiv 2503.20783.

    A_i = r_i - mean r

Degenerate: a group whose rewards are all equal gives exactly 0; a response that is masked out, or whose reward is not
finite, gives 0 and is left out of the mean.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups


def dr_grpo(rewards: Float[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None) -> Float[Tensor, "B G"]:
    """Rewards minus the group's mean, (B, G)."""
    r, valid = groups.promote(rewards), groups.finite(rewards, mask)
    return torch.where(valid & groups.live(r, valid).unsqueeze(-1), r - groups.mean(r, valid), 0.0)
