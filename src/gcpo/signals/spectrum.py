"""Entropy of a spectrum: what von Neumann entropy, effective rank and kernel language entropy share."""

import torch
from jaxtyping import Float
from torch import Tensor


def spectral_entropy(density: Float[Tensor, "B G G"]) -> Float[Tensor, " B"]:
    """Von Neumann entropy -tr(rho log rho) of symmetric matrices with trace 1, in nats.

    Eigenvalues below the rounding of 1 are noise of either sign and count as 0; so they have no gradient either.
    """
    p = torch.linalg.eigvalsh(density)
    p = torch.where(p > torch.finfo(p.dtype).eps, p, 1)  # 1 log 1 = 0
    return -(p * p.log()).sum(-1).clamp(max=0) + 0.0  # not -0.0
