"""A map of a group: the two directions in which its responses differ most."""

import torch
from jaxtyping import Float
from torch import Tensor

from gcpo import groups


def plane(embeddings: Float[Tensor, "B G D"]) -> Float[Tensor, "B G 2"]:
    """First two principal components of each group's unit embeddings; left-out embeddings lie at the centre.

    The sign of an axis is chosen so that its largest coordinate is positive, which makes the map reproducible.
    """
    u, valid = groups.unit(embeddings)
    centre = u.sum(-2, keepdim=True) / groups.count(valid, u).unsqueeze(-1)
    deviation = (u - centre) * valid.unsqueeze(-1)
    left, singular, _ = torch.linalg.svd(deviation, full_matrices=False)
    coordinates = left * singular.unsqueeze(-2)
    short = 2 - coordinates.shape[-1]
    coordinates = torch.nn.functional.pad(coordinates[..., :2], (0, max(short, 0)))
    largest = coordinates.gather(-2, coordinates.abs().argmax(-2, keepdim=True))
    return coordinates * torch.where(largest < 0, -1.0, 1.0)
