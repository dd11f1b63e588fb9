"""Damping: advantages over a power of the length of the score, so that no response pulls for its improbability alone.

Source: this project; per-sample gradient normalisation (cf. clipping, arXiv 1607.00133) with lengths from the output
layer alone.

    v_i = |s_i|^-c,    s_i = grad log pi(o_i | q)

The update of a group is sum_i A_i v_i s_i. With c = 1 every score counts as a direction; c = 0 leaves all as they
are. A response that the policy finds improbable has a long score, and a reward that is right or wrong by chance is
then felt most: with noisy rewards damping gains most (docs/results/alignment.md). Unlike a baseline it biases the
gradient: improbable responses count less; with a negative c, more.

It knows no batch: what one group gets does not hang on another. The scale of v is that of the scores; recipes bring
its mean to 1.

A length below a tenth of its group's median counts as that tenth, or one response that the policy is sure of would
take the whole batch's mean.

Degenerate: a response whose length is 0 or not finite gets the mean of its group, or 1 if there is none.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups

_LEAST = 0.1


def damping(norms: Float[Tensor, "B G"], counted: Bool[Tensor, "B G"], c: float) -> Float[Tensor, "B G"]:
    """Weight of each response, (B, G).

    Args:
        norms: Length of the gradient of each response's log-probability, or an estimate up to a factor.
        counted: Responses that count.
        c: Power.
    """
    s = groups.promote(norms)
    known = counted & s.isfinite() & (s > 0)
    # The lower median by sorting: torch.nanmedian is refused on GPUs where all has to be deterministic.
    middle = (known.sum(-1, keepdim=True) - 1).clamp(min=0) // 2
    median = s.masked_fill(~known, torch.inf).sort(-1).values.gather(-1, middle)
    v = torch.where(known, torch.where(known, s.clamp(min=_LEAST * median), 1) ** -c, 0)
    mean = v.sum(-1, keepdim=True) / groups.count(known, v)
    return torch.where(known, v, torch.where(mean > 0, mean, 1))
