"""Degree dispersion: how weakly the responses of a group hang together.

Source: degree matrix ("Deg"), Lin et al., arXiv 2305.19187.

    Deg = 1 - mean_ij W_ij = tr(n I - D) / n^2,    D = degrees of the similarity graph W

For similarities up to 1 with 1 on the diagonal it lies in [0, 1 - 1/n].

Degenerate: one response, or identical ones, give 0. Which responses are left out, ``affinity.graph`` says.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.affinity import graph
from gcpo.signals.registry import signal


def _upper(n: Tensor) -> Tensor:
    return 1 - 1 / n.clamp(min=1)


@signal(upper=_upper, source="arXiv 2305.19187")
def degree_dispersion(
    similarity: Float[Tensor, "B G G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, " B"]:
    """Mean dissimilarity of a group's responses.

    Args:
        similarity: How far each pair means the same, 1 for the same; from embeddings see ``affinity``.
        mask: Which responses count.

    Returns:
        (B,), in float32 (float64 if ``similarity`` is).
    """
    W, valid = graph(similarity, mask)
    n = groups.count(valid, W).squeeze(-1)
    return torch.where(n > 1, 1 - W.sum((-2, -1)) / n.square(), 0)
