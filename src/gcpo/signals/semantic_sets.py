"""Number of semantic sets: how many meanings a group's responses have.

Source: Lin et al., arXiv 2305.19187.

    sets = number of distinct labels, in [1, n]

Degenerate: identical responses give 1; one response gives 0, as in every signal.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo.signals.registry import signal


@signal(upper=torch.clone, lower=torch.ones_like, source="arXiv 2305.19187")
def semantic_sets(labels: Int[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None) -> Float[Tensor, " B"]:
    """Number of meanings in a group.

    Args:
        labels: Meaning of each response; only equality inside a group matters.
        mask: Which responses count.

    Returns:
        (B,) in [1, n], 0 where n < 2, in float32.
    """
    valid = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    same = (labels.unsqueeze(-1) == labels.unsqueeze(-2)) & valid.unsqueeze(-2)
    first = valid & ~same.tril(-1).any(-1)
    return torch.where(valid.sum(-1) > 1, first.sum(-1), 0).float()
