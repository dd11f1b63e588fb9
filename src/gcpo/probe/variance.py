"""What a policy gradient's noise and size are, from the inner products K_ij = s_i . s_j of a group's scores.

Source: this project; the unbiased square is the one behind the gradient noise scale (arXiv 1812.06162). With n the
number of responses that count, g_i = A_i s_i, H_ij = A_i A_j K_ij:

    score variance     tr Cov(s) = (sum_i K_ii - 1/n sum_ij K_ij) / (n - 1)
    weighted variance  tr Cov(g), the same of H
    mean norm          |mean g|
    mean square        |E g|^2 without the noise's share: sum_{i != j} H_ij / (n (n - 1)), negative at times
    snr                mean square / (weighted variance / n)

Noise is of responses drawn independently: advantages that use the group's mean tie them, which this does not undo.

Degenerate: one response or none gives 0. A response whose product with itself is not finite is left out. Where the
variance is 0, snr is 0 if the mean square is, else infinite.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from gcpo import groups

Gram = Float[Tensor, "B G G"]
Mask = Bool[Tensor, "B G"] | None


def score_variance(gram: Gram, mask: Mask = None) -> Float[Tensor, " B"]:
    """Trace of the sample covariance of the scores.

    Args:
        gram: Inner products of each group's scores.
        mask: Which responses count.
    """
    return _variance(*_counted(gram, torch.ones_like(gram[..., 0]), mask))


def weighted_variance(gram: Gram, advantages: Real[Tensor, "B G"], mask: Mask = None) -> Float[Tensor, " B"]:
    """Trace of the sample covariance of the scores times their advantages: the noise of one response's gradient."""
    return _variance(*_counted(gram, advantages, mask))


def mean_norm(gram: Gram, advantages: Real[Tensor, "B G"], mask: Mask = None) -> Float[Tensor, " B"]:
    """Length of the group's gradient, the mean of advantage times score; the noise adds to it."""
    H, n = _counted(gram, advantages, mask)
    return H.sum((-2, -1)).clamp(min=0).sqrt() / n


def mean_square(gram: Gram, advantages: Real[Tensor, "B G"], mask: Mask = None) -> Float[Tensor, " B"]:
    """Squared length of the expected gradient, without bias from the noise."""
    return _mean_square(*_counted(gram, advantages, mask))


def snr(gram: Gram, advantages: Real[Tensor, "B G"], mask: Mask = None) -> Float[Tensor, " B"]:
    """Squared length of the expected gradient over the variance of the group's."""
    H, n = _counted(gram, advantages, mask)
    square, noise = _mean_square(H, n), _variance(H, n) / n
    return torch.where(square == 0, 0, square / noise)


def _counted(gram: Tensor, advantages: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """Products of weighted scores, 0 where a response does not count, and how many do, at least 1."""
    a = advantages.to(groups.promote(gram).dtype)
    valid = groups.finite(gram.diagonal(dim1=-2, dim2=-1) * a.abs(), mask)
    a = torch.where(valid, a, 0)
    both = valid.unsqueeze(-1) & valid.unsqueeze(-2)
    H = torch.where(both, groups.promote(gram), 0) * a.unsqueeze(-1) * a.unsqueeze(-2)
    return H, groups.count(valid, H).squeeze(-1)


def _variance(H: Tensor, n: Tensor) -> Tensor:
    trace = H.diagonal(dim1=-2, dim2=-1).sum(-1) - H.sum((-2, -1)) / n
    return trace.clamp(min=0) / (n - 1).clamp(min=1)


def _mean_square(H: Tensor, n: Tensor) -> Tensor:
    pairs = H.sum((-2, -1)) - H.diagonal(dim1=-2, dim2=-1).sum(-1)
    return pairs / (n * (n - 1)).clamp(min=1)
