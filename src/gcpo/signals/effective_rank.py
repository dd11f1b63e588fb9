"""Effective rank: how many directions the responses of a group take up.

Source: Roy & Vetterli, "The effective rank", EUSIPCO 2007; of a Gram matrix it is the Vendi score, arXiv 2210.02410.

    erank = exp(VNE) in [1, n],    VNE in nats: 1 if all point the same way, n if they are orthogonal

Degenerate: identical responses give 1; one response gives 0, as in every signal. Zero-norm and non-finite embeddings
are left out.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo.signals.registry import signal
from gcpo.signals.von_neumann_entropy import direction_entropy


@signal(upper=torch.clone, lower=torch.ones_like, source="Roy & Vetterli 2007; arXiv 2210.02410")
def effective_rank(embeddings: Float[Tensor, "B G D"], mask: Bool[Tensor, "B G"] | None = None) -> Float[Tensor, " B"]:
    """Number of directions a group's responses take up.

    Args:
        embeddings: One vector a response, any scale.
        mask: Which responses count.

    Returns:
        (B,) in [1, n], 0 where n < 2, in float32 (float64 if ``embeddings`` is).
    """
    entropy, n = direction_entropy(embeddings, mask)
    return torch.where(n > 1, entropy.exp(), 0)
