"""Cosine dispersion (CD): the mean cosine distance between the responses of a group.

Source: named in GCPO, arXiv 2605.21801, which gives no formula in any public source; this one is our reconstruction.

    CD = mean_{i<j} (1 - u_i . u_j) = n / (n - 1) * (1 - |mean u|^2),    u_i = x_i / |x_i|
       = n / (n - 1) * mean_i |u_i - mean u|^2

The first line needs no pass to normalise the embeddings, but loses what is below the rounding of 1: groups that lie
near together are taken by the second.

Degenerate: one response, or identical ones, give 0. Zero-norm and non-finite embeddings are left out.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal

_NEAR = 0.02  # below it the first form would be off by more than 1e-5 of itself


def _upper(n: Tensor) -> Tensor:
    return n / (n - 1).clamp(min=1)


@signal(upper=_upper, source="named in arXiv 2605.21801; formula reconstructed")
def cosine_dispersion(
    embeddings: Float[Tensor, "B G D"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, " B"]:
    """Mean cosine distance between the responses of a group.

    Args:
        embeddings: One vector a response, any scale.
        mask: Which responses count.

    Returns:
        (B,) in [0, n / (n - 1)], in float32 (float64 if ``embeddings`` is).
    """
    variance, n = direction_variance(embeddings, mask)
    return variance * n / (n - 1).clamp(min=1)


def direction_variance(
    embeddings: Float[Tensor, "B G D"], mask: Bool[Tensor, "B G"] | None
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """mean_i |u_i - mean u|^2, and how many embeddings it is taken over."""
    x, norm, valid = groups.tame(embeddings, mask)
    weight = valid / norm
    n = groups.count(valid, x)
    centre = (weight.unsqueeze(-2) @ x).squeeze(-2) / n
    n = n.squeeze(-1)
    variance = 1 - centre.square().sum(-1)
    near = variance < _NEAR
    if near.any():
        variance = variance.masked_scatter(near, _variance(x[near], weight[near], valid[near], centre[near]))
    return torch.where(n > 1, variance, 0), n


def _variance(x: Tensor, weight: Tensor, valid: Tensor, centre: Tensor) -> Float[Tensor, " near"]:
    deviation = torch.addcmul(-centre.unsqueeze(-2), x, weight.unsqueeze(-1)) * valid.unsqueeze(-1)
    return deviation.square().sum((-2, -1)) / groups.count(valid, x).squeeze(-1)
