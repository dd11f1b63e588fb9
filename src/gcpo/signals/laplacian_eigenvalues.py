"""Sum of Laplacian eigenvalues: a soft count of the meanings in a group.

Source: "EigV", Lin et al., arXiv 2305.19187.

    EigV = sum_k max(0, 1 - l_k),    l = eigenvalues of L = I - D^-1/2 W D^-1/2

1 - l are the eigenvalues of the normalised graph itself. A graph of m cliques without edges between them gives m.

Degenerate: identical responses give 1; one response gives 0, as in every signal. Which responses are left out,
``affinity.graph`` says.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo.signals.affinity import graph
from gcpo.signals.registry import signal


@signal(upper=torch.clone, lower=torch.ones_like, source="arXiv 2305.19187")
def laplacian_eigenvalues(
    similarity: Float[Tensor, "B G G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, " B"]:
    """Soft count of the meanings in a group.

    Args:
        similarity: How far each pair means the same, 1 for the same; from embeddings see ``affinity``.
        mask: Which responses count.

    Returns:
        (B,) in [1, n], 0 where n < 2, in float32 (float64 if ``similarity`` is).
    """
    W, valid = graph(similarity, mask)
    count = torch.linalg.eigvalsh(normalized(W, valid)).clamp(min=0).sum(-1)
    return torch.where(valid.sum(-1) > 1, count, 0)


def normalized(W: Float[Tensor, "B G G"], valid: Bool[Tensor, "B G"]) -> Float[Tensor, "B G G"]:
    """D^-1/2 W D^-1/2, where a response without ties stays without."""
    degree = W.sum(-1)
    scale = torch.where(valid & (degree > 0), degree, 1).rsqrt()
    return W * scale.unsqueeze(-1) * scale.unsqueeze(-2)
