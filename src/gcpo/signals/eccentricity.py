"""Eccentricity: how far the responses of a group lie from their centre, in the coordinates of their graph.

Source: "Ecc", Lin et al., arXiv 2305.19187.

    Ecc = |V - mean V|_F,    V = eigenvectors of L = I - D^-1/2 W D^-1/2 with eigenvalue below a threshold, (n, K)

Row i of V is where response i lies. It jumps where an eigenvalue crosses the threshold, and so has no gradient.
At most sqrt(n - 1).

Degenerate: one response, or identical ones, give 0. Which responses are left out, ``affinity.graph`` says.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.affinity import graph
from gcpo.signals.laplacian_eigenvalues import normalized
from gcpo.signals.registry import signal


def _upper(n: Tensor) -> Tensor:
    return (n - 1).clamp(min=0).sqrt()


@signal(upper=_upper, source="arXiv 2305.19187")
@torch.no_grad()
def eccentricity(
    similarity: Float[Tensor, "B G G"], mask: Bool[Tensor, "B G"] | None = None, threshold: float = 0.9
) -> Float[Tensor, " B"]:
    """Spread of a group's responses in the leading eigenvectors of their graph.

    Args:
        similarity: How far each pair means the same, 1 for the same; from embeddings see ``affinity``.
        mask: Which responses count.
        threshold: Eigenvectors of the Laplacian with a smaller eigenvalue are kept.

    Returns:
        (B,) in [0, sqrt(n - 1)], in float32 (float64 if ``similarity`` is).
    """
    W, valid = graph(similarity, mask)
    eigenvalues, V = torch.linalg.eigh(normalized(W, valid))
    mean = V.sum(-2, keepdim=True) / groups.count(valid, V).unsqueeze(-1)
    deviation = (V - mean) * valid.unsqueeze(-1)
    kept = eigenvalues > 1 - threshold
    ecc = (deviation.square().sum(-2) * kept).sum(-1).sqrt()
    return torch.where(valid.sum(-1) > 1, ecc, 0)
