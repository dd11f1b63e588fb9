"""Von Neumann entropy (VNE): over how many directions the responses of a group spread.

Source: the entropy of a Gram matrix, as in the Vendi score, arXiv 2210.02410; on responses of language models see
kernel language entropy, arXiv 2405.20003.

    VNE = - sum_k l_k log l_k,    l = eigenvalues of U U^T / n,    u_i = x_i / |x_i|,    divided by log n

Degenerate: one response, or identical ones, give 0. Zero-norm and non-finite embeddings are left out.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal
from gcpo.signals.spectrum import spectral_entropy


@signal(upper=torch.ones_like, source="arXiv 2210.02410, 2405.20003")
def von_neumann_entropy(
    embeddings: Float[Tensor, "B G D"], mask: Bool[Tensor, "B G"] | None = None, normalize: bool = True
) -> Float[Tensor, " B"]:
    """Entropy of the directions a group's responses spread over.

    Args:
        embeddings: One vector a response, any scale.
        mask: Which responses count.
        normalize: Divide by log n, so that the result lies in [0, 1]; False gives nats.

    Returns:
        (B,), in float32 (float64 if ``embeddings`` is).
    """
    entropy, n = direction_entropy(embeddings, mask)
    return entropy / n.clamp(min=2).log() if normalize else entropy


def direction_entropy(
    embeddings: Float[Tensor, "B G D"], mask: Bool[Tensor, "B G"] | None
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """VNE in nats, and how many responses it is taken over."""
    cosines, valid = groups.cosines(embeddings, mask)
    n = groups.count(valid, cosines)
    entropy = spectral_entropy(cosines / n.unsqueeze(-1))
    n = n.squeeze(-1)
    return torch.where(n > 1, entropy, 0), n
