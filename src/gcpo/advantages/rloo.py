"""RLOO: each reward against the mean of the others.

Source: Ahmadian et al., Back to basics, arXiv 2402.14740 (Kool et al. 2019).

    A_i = r_i - mean_{j != i} r_j = n / (n - 1) * (r_i - mean r)

Degenerate: a group whose rewards are all equal, or that has one response, gives exactly 0; a response that is masked
out, or whose reward is not finite, gives 0 and is nobody's baseline.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.advantages.dr_grpo import dr_grpo


def rloo(rewards: Float[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None) -> Float[Tensor, "B G"]:
    """Rewards minus the mean of the group's other rewards, (B, G)."""
    advantages = dr_grpo(rewards, mask)
    n = groups.count(groups.finite(rewards, mask), advantages)
    return advantages * n / (n - 1).clamp(min=1)
