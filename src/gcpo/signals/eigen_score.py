"""EigenScore: log-volume that the responses of a group span in embedding space.

Source: INSIDE, arXiv 2402.03744.

    EigenScore = 1/n log det(Z J Z^T + alpha I),    J = I - 1 1^T / D (each embedding is centred over its features)

Not free of scale: embeddings twice as long score up to 2 log 2 more. The authors' code takes log10 of the singular
values; this is the paper's natural logarithm.

Degenerate: one response gives 0. Identical ones give about log alpha, the least there is, plus their common length.
Non-finite embeddings are left out, and zero ones too.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


@signal(upper=None, source="arXiv 2402.03744")
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
    x, gram, valid = groups.gram(embeddings, mask)
    n = valid.sum(-1)
    C = torch.diag_embed(torch.where(valid, alpha, 1).double()) + _centred(x, gram, alpha)
    L, failed = torch.linalg.cholesky_ex(C)
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    if failed.any():  # entries so large that alpha is below their rounding
        far = failed > 0
        log_det = log_det.masked_scatter(far, torch.linalg.eigvalsh(C[far]).clamp(min=alpha).log().sum(-1))
    return torch.where(n > 1, log_det / n.clamp(min=1), 0).to(x.dtype)


def _centred(x: Float[Tensor, "B G D"], gram: Float[Tensor, "B G G"], alpha: float) -> Float[Tensor, "B G G"]:
    """X J X^T in float64, computed in it where float32 would round by more than a thousandth of alpha."""
    mean = x.mean(-1)
    products = (gram - x.shape[-1] * mean.unsqueeze(-1) * mean.unsqueeze(-2)).double()
    rounding = gram.diagonal(dim1=-2, dim2=-1).amax(-1) * torch.finfo(x.dtype).eps
    rough = rounding > alpha / 1000
    if not rough.any():
        return products
    z = x[rough].double()
    z = z - z.mean(-1, keepdim=True)
    return products.index_put((rough,), z @ z.mT)
