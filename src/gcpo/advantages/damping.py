"""Damping: no response may pull much harder than the typical one.

Source: this project; a smooth form of per-sample gradient clipping (Abadi et al., arXiv 1607.00133) whose threshold is
the batch's own median, with norms from the output layer alone.

    v_i = 1 / (1 + c x_i / median x),    x_i = |A_i| |s_i|,  median over the responses of live groups

A response that pulls as the typical one does gets 1 / (1 + c), one that pulls without bound pulls at most like
median / c. c = 0 leaves all as they are. Unlike a baseline it biases the gradient: responses that the policy finds
improbable, whose scores are long, count less.

Degenerate: x = 0 gives v = 1, and so does a norm that is not finite.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups


def damping(
    advantages: Float[Tensor, "B G"], norms: Float[Tensor, "B G"], counted: Bool[Tensor, "B G"], c: float
) -> Float[Tensor, "B G"]:
    """Weight of each response in (0, 1].

    Args:
        advantages: Base advantages.
        norms: Length of the gradient of each response's log-probability, or an estimate up to a factor.
        counted: Responses the typical pull is taken over.
        c: Strength, at least 0.
    """
    pull = groups.promote(advantages).abs() * groups.promote(norms)
    counted = counted & pull.isfinite()
    typical = pull.masked_fill(~counted, torch.nan).nanmedian()
    return torch.where(counted & (pull > 0) & (typical > 0), 1 / (1 + c * pull / typical), 1.0)
