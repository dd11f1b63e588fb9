"""Graphs over the responses of a group: what graph signals take, from any similarity.

W (G, G) is symmetric and not negative: W_ij is how far responses i and j mean the same, W_ii their similarity to
themselves (1 for cosines and NLI).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups


def affinity(embeddings: Float[Tensor, "B G D"], mask: Bool[Tensor, "B G"] | None = None) -> Float[Tensor, "B G G"]:
    """Similarity of responses by their embeddings: max(cos, 0), since a graph has no negative edges.

    Rows and columns of responses that do not count (masked out, zero, not finite) are 0, the diagonal too, by which
    ``graph`` knows them.
    """
    return groups.cosines(embeddings, mask)[0].clamp(min=0)


def graph(
    similarity: Float[Tensor, "B G G"], mask: Bool[Tensor, "B G"] | None = None
) -> tuple[Float[Tensor, "B G G"], Bool[Tensor, "B G"]]:
    """The symmetric part of a similarity without negative edges, and which responses are in it.

    Left out, with zeros in their rows and columns: responses outside the mask, those that are similar to none, not
    even themselves, or whose similarity to themselves is not finite; then those with any similarity that is not
    finite, or so large that sums might not be.
    """
    W = groups.promote(similarity)
    fair = W.abs() < 1e15  # NaN compares false
    valid = fair.diagonal(dim1=-2, dim2=-1) & (W > 0).any(-1)
    if mask is not None:
        valid = valid & mask
    if not (valid.all() and fair.all()):
        sound = fair | ~_pairs(valid)
        valid = valid & sound.all(-1) & sound.all(-2)
        W = torch.where(_pairs(valid), W, 0)
    return torch.add(W, W.mT).mul_(0.5).clamp_(min=0), valid


def _pairs(valid: Bool[Tensor, "B G"]) -> Bool[Tensor, "B G G"]:
    return valid.unsqueeze(-1) & valid.unsqueeze(-2)
