"""Cosine dispersion (CD): the mean cosine distance between the responses of a group.

Source: named in GCPO, arXiv 2605.21801, which gives no formula in any public source; this one is our reconstruction.

    CD = mean_{i<j} (1 - u_i . u_j) = n / (n - 1) * mean_i |u_i - mean u|^2,    u_i = x_i / |x_i|

The centred form on the right is the one computed: 1 - u_i . u_j loses everything below the rounding of 1.

Degenerate: one response, or identical ones, give 0. Zero-norm and non-finite embeddings are left out.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


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
    u, valid = groups.unit(embeddings, mask)
    n = groups.count(valid, u)
    centre = u.sum(-2) / n
    deviation = (u - centre.unsqueeze(-2)) * valid.unsqueeze(-1)
    return deviation.square().sum((-2, -1)) / (n.squeeze(-1) - 1).clamp(min=1)
