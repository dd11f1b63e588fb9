"""Score baseline: each reward against the mean of the others, weighted by the squared length of their gradients.

Source: the constant baseline that minimises the variance of the policy gradient, E[|s|^2 r] / E[|s|^2] (Weaver & Tao
2001; Greensmith et al., JMLR 5, 2004), estimated from the other responses of the group; as an advantage of group
methods cf. OPO, arXiv 2505.23585, which puts the length of the response for |s|^2.

    A_i = r_i - sum_{j != i} w_j r_j / sum_{j != i} w_j,    w_j = |s_j|^2,  s_j = grad log pi(o_j | q)

Leaving i out keeps the estimator unbiased: the baseline of o_i does not depend on o_i (but for the millionth of the
group's longest norm that keeps the divisor positive). With equal norms it is RLOO.
It is optimal in the limit of many responses; of few, the estimated baseline is noisy itself: on a peaked softmax over
four answers, whose norms differ much, 4 responses have more variance than with RLOO, 8 about as much, 32 far less.

Degenerate: a group whose rewards are all equal, or that has one response, gives exactly 0; a response that is masked
out, or whose reward is not finite, gives 0 and is nobody's baseline, and so is one whose norm is not finite. Where all
others have no gradient, they count alike.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups

_LEAST = 1e-6  # of the largest weight: keeps the divisor positive, and all-zero norms equal


def score_baseline(
    rewards: Float[Tensor, "B G"], norms: Float[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, "B G"]:
    """Rewards minus the norm-weighted mean of the group's other rewards, (B, G).

    Args:
        rewards: Rewards of the responses.
        norms: Length of the gradient of each response's log-probability, or an estimate up to a factor.
        mask: Which responses count.
    """
    r, valid = groups.promote(rewards), groups.finite(rewards, mask)
    known = valid & norms.isfinite()
    scale = torch.where(known, norms, 0).amax(-1, keepdim=True)
    w = torch.where(known, (norms / torch.where(scale > 0, scale, 1)).square() + _LEAST, 0).to(r.dtype)
    others = w.unsqueeze(-2) * ~torch.eye(w.shape[-1], dtype=torch.bool, device=w.device)
    total = others.sum(-1)
    baseline = (others * torch.where(valid, r, 0).unsqueeze(-2)).sum(-1) / torch.where(total > 0, total, 1)
    counted = valid & groups.live(r, valid).unsqueeze(-1) & (total > 0)
    return torch.where(counted, r - baseline, 0.0)
