"""Kernel language entropy (KLE): von Neumann entropy of a kernel on the graph of a group's responses.

Source: Nikitin et al., arXiv 2405.20003.

    L = D - W
    heat:    K = exp(-t L)
    Matern:  K = (2 nu / kappa^2 I + L)^-nu
    KLE = - tr(rho log rho) / log n,    rho_ij = K_ij / (n sqrt(K_ii K_jj))

t = 0.3 as in lm-polygraph, which adds the two directions of an edge where W averages them: t = 0.6 is its diffusion.
The minus sign matters: exp(+t L), which lm-polygraph 0.5.0 computed, calls identical responses uncertain.

Degenerate: one response gives 0. Identical ones give the least value there is, which is not 0, since heat takes time
to spread: it nears 0 as t n grows. Which responses are left out, ``affinity.graph`` says.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.affinity import graph
from gcpo.signals.registry import signal
from gcpo.signals.spectrum import spectral_entropy


def _lower(n: Tensor) -> Tensor:
    """KLE of the complete graph with the default heat kernel: rho has one large and n - 1 equal small eigenvalues."""
    small = torch.exp(-0.3 * n)
    p = 1 / (1 + (n - 1) * small)
    q = small * p
    return -(torch.xlogy(p, p) + (n - 1) * torch.xlogy(q, q)) / n.clamp(min=2).log()


@signal(upper=torch.ones_like, lower=_lower, source="arXiv 2405.20003")
def kernel_language_entropy(
    similarity: Float[Tensor, "B G G"],
    mask: Bool[Tensor, "B G"] | None = None,
    kernel: Literal["heat", "matern"] = "heat",
    t: float = 0.3,
    kappa: float = 1.0,
    nu: int = 1,
) -> Float[Tensor, " B"]:
    """Entropy of a diffusion over the similarity graph of a group.

    Args:
        similarity: How far each pair means the same, 1 for the same; from embeddings see ``affinity``.
        mask: Which responses count.
        kernel: ``heat`` or ``matern``.
        t: How long heat spreads.
        kappa: Length scale of the Matern kernel.
        nu: Smoothness of the Matern kernel, a whole number.

    Returns:
        (B,) in [0, 1], in float32 (float64 if ``similarity`` is).

    Raises:
        ValueError: The kernel is not known, or its parameters are not positive.
    """
    if not (t > 0 and kappa > 0 and nu >= 1):
        raise ValueError(f"t, kappa and nu must be positive, found t={t}, kappa={kappa}, nu={nu}.")
    W, valid = graph(similarity, mask)
    L = torch.diag_embed(W.sum(-1)) - W
    if kernel == "heat":
        K = _heat(t * L)
    elif kernel == "matern":
        eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
        K = torch.linalg.matrix_power(torch.linalg.inv(2 * nu / kappa**2 * eye + L), nu)
    else:
        raise ValueError(f"kernel must be 'heat' or 'matern', found {kernel!r}.")
    n = groups.count(valid, W)
    scale = K.diagonal(dim1=-2, dim2=-1).rsqrt() * valid / n.sqrt()
    entropy = spectral_entropy(K * scale.unsqueeze(-1) * scale.unsqueeze(-2))
    n = n.squeeze(-1)
    return torch.where(n > 1, entropy / n.clamp(min=2).log(), 0)


def _heat(L: Float[Tensor, "B G G"]) -> Float[Tensor, "B G G"]:
    """exp(-L). torch takes one float32 matrix alone to 3e-5 only, in a batch to 4e-7."""
    return torch.matrix_exp(-(L if len(L) > 1 else L.repeat(2, 1, 1)))[: len(L)]
