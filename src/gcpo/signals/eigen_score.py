"""EigenScore: log-volume that the responses of a group span in embedding space.

Source: INSIDE, arXiv 2402.03744.

    EigenScore = 1/n log det(Z J Z^T + alpha I),    J = I - 1 1^T / D (each embedding is centred over its features)

Not free of scale: embeddings twice as long score up to 2 log 2 more. The authors' code takes log10 of the singular
values; this is the paper's natural logarithm.

Degenerate: one response gives 0. Identical ones give about log alpha, the least there is, plus their common length.
Non-finite embeddings are left out, and zero ones too.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


def _lower(n: Tensor) -> Tensor:
    return torch.full_like(n, math.log(1e-3))


@signal(upper=None, lower=_lower, source="arXiv 2402.03744")
def eigen_score(
    embeddings: Float[Tensor, "B G D"], mask: Bool[Tensor, "B G"] | None = None, alpha: float = 1e-3
) -> Float[Tensor, " B"]:
    """Log-volume a group's responses span.

    Args:
        embeddings: One vector a response; their scale counts.
        mask: Which responses count.
        alpha: What is added to every eigenvalue.

    Returns:
        (B,) at least log ``alpha``, 0 where n < 2, in float32 (float64 if ``embeddings`` is).
    """
    x, gram, valid = groups.gram(embeddings, mask, rescale=False)
    n, mean = valid.sum(-1), x.mean(-1)
    ridge = torch.diag_embed(torch.where(valid, alpha, 1).double())
    L, failed = torch.linalg.cholesky_ex(ridge + gram - x.shape[-1] * mean.unsqueeze(-1) * mean.unsqueeze(-2))
    pivots = L.diagonal(dim1=-2, dim2=-1)
    inverse = torch.linalg.solve_triangular(L, torch.eye(L.shape[-1], dtype=L.dtype, device=L.device), upper=False)
    rounding = gram.diagonal(dim1=-2, dim2=-1).amax(-1) * torch.finfo(x.dtype).eps
    rough = (failed > 0) | ~(rounding * inverse.square().sum((-2, -1)) < 5e-4)
    if rough.any():  # d log det C = tr(C^-1 dC): what float32 loses of C is too much
        pivots = pivots.index_put((rough,), _pivots(x[rough].double(), ridge[rough]))
    return torch.where(n > 1, 2 * pivots.log().sum(-1) / n.clamp(min=1), 0).to(x.dtype)


def _pivots(x: Float[Tensor, "rough G D"], ridge: Float[Tensor, "rough G G"]) -> Float[Tensor, "rough G"]:
    """Square roots of the determinant's factors, from float64 throughout."""
    z = x - x.mean(-1, keepdim=True)
    C = ridge + z @ z.mT
    L, failed = torch.linalg.cholesky_ex(C)
    pivots: Tensor = L.diagonal(dim1=-2, dim2=-1)
    if failed.any():  # vectors so long that alpha is below even this rounding; no eigenvalue is below it
        far = failed > 0
        floor = ridge[far].diagonal(dim1=-2, dim2=-1).amin(-1, keepdim=True)
        pivots = pivots.index_put((far,), torch.linalg.eigvalsh(C[far]).clamp(min=floor).sqrt())
    return pivots
