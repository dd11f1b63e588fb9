"""From a relation between the responses of a group to its meanings: the connected components.

An equivalence of texts that a model or a tolerance decides need not be transitive. Its connected components are the
finest partition that splits no related pair; they do not depend on the order of the responses, and no response is in
two of them. Merging greedily, response by response, gives neither.

The price: a chain of related pairs joins its ends, however far apart they are (single linkage).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo import groups

_ROUNDING = 1e-6


def connected_components(same: Bool[Tensor, "B G G"], mask: Bool[Tensor, "B G"] | None = None) -> Int[Tensor, "B G"]:
    """Partition of each group by a relation of its responses.

    The relation is closed by squaring it, which doubles the length of the chains that are seen.

    Args:
        same: Which responses are related. A pair counts if the relation holds in both directions; the diagonal is
            taken as true.
        mask: Which responses count; one that does not stands alone and joins nobody.

    Returns:
        (B, G) int64: the place in the group of the first response of the same component.
    """
    G = same.size(-1)
    reach = same & same.mT
    if mask is not None:
        reach = reach & mask.unsqueeze(-1) & mask.unsqueeze(-2)
    reach = reach | torch.eye(G, dtype=torch.bool, device=same.device)
    for _ in range(max(G - 2, 0).bit_length()):
        steps = reach.float()
        reach = steps @ steps > 0
    place = torch.arange(G, device=same.device)
    return torch.where(reach, place, G).amin(-1)


def cluster_by_cosine(
    embeddings: Float[Tensor, "B G D"], threshold: float, mask: Bool[Tensor, "B G"] | None = None
) -> Int[Tensor, "B G"]:
    """Meanings of responses whose embeddings have a cosine of at least ``threshold``, up to rounding.

    Any other similarity: ``connected_components(similarity >= threshold, mask)``.

    Args:
        embeddings: One vector a response, any scale; one that is zero or not finite stands alone.
        threshold: Least cosine of two responses that mean the same; how high is a property of the embedder.
        mask: Which responses count; one that does not stands alone.

    Returns:
        (B, G) int64, as ``connected_components``.
    """
    return connected_components(alike_by_cosine(embeddings, threshold, mask))


def alike_by_cosine(
    embeddings: Float[Tensor, "B G D"], threshold: float, mask: Bool[Tensor, "B G"] | None = None
) -> Bool[Tensor, "B G G"]:
    """The relation that ``cluster_by_cosine`` takes the components of; arguments as there."""
    u, valid = groups.unit(embeddings, mask)
    return (u @ u.mT >= threshold - _ROUNDING) & valid.unsqueeze(-1) & valid.unsqueeze(-2)
