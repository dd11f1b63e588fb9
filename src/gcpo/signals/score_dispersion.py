"""Score dispersion: how far the policy gradients of a group's responses disagree.

Source: this project. The variance of the group's estimator (1/G) sum_i A_i s_i, s_i = grad log pi(o_i | q), is
tr Cov(A s) / G, and a signal is as good as its geometry is close to that of the scores. Near relatives: last-layer
gradients as embeddings, BADGE (arXiv 1906.03671); their norms, GraNd and EL2N (arXiv 2107.07075).

    SD          = tr Cov(s)   = 1 / (n - 1) sum_i |s_i - mean s|^2
    weighted SD = tr Cov(A s)

s_i are features whose inner products are those of the scores, or estimate them: ``gcpo.semantics.scores`` has both for
the output layer. Neither is free of scale, since the size of a gradient counts.

Degenerate: one response, or identical ones, give 0. Left out is a response whose score, times its advantage in the
weighted form, is not finite or too large to be squared; a score of zero is a score and stays. A dispersion beyond the
largest number of its dtype is that number.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


@signal(upper=None, source="this project; relatives arXiv 1906.03671, 2107.07075")
def score_dispersion(scores: Float[Tensor, "B G F"], mask: Bool[Tensor, "B G"] | None = None) -> Float[Tensor, " B"]:
    """Trace of the covariance of a group's score features.

    Args:
        scores: Gradient of each response's log-probability, or features with its inner products.
        mask: Which responses count.

    Returns:
        (B,), at least 0 and without an upper bound, in float32 (float64 if ``scores`` is).
    """
    x = groups.promote(scores)
    return _trace(x, groups.finite(_length(x), mask))


@signal(upper=None, source="this project; relatives arXiv 1906.03671, 2107.07075")
def weighted_score_dispersion(
    scores: Float[Tensor, "B G F"], advantages: Real[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, " B"]:
    """Trace of the covariance of a group's score features times their advantages.

    Args:
        scores: Gradient of each response's log-probability, or features with its inner products.
        advantages: What the trainer multiplies them by.
        mask: Which responses count.

    Returns:
        (B,), at least 0 and without an upper bound, in float32 (float64 if ``scores`` or ``advantages`` are).
    """
    x, a = groups.promote(scores), groups.promote(advantages)
    valid = groups.finite((_length(x) * a.detach()).square(), mask)
    return _trace(_kept(x, valid) * _kept(a.unsqueeze(-1), valid), valid)


def _trace(x: Float[Tensor, "B G F"], valid: Bool[Tensor, "B G"]) -> Float[Tensor, " B"]:
    """Trace of the sample covariance, centred: the difference of two large sums loses near-duplicates."""
    x = _kept(x, valid)
    n = groups.count(valid, x)
    deviation = _kept(x - x.sum(-2, keepdim=True) / n.unsqueeze(-1), valid)
    limit = torch.finfo(x.dtype)
    total = torch.linalg.vector_norm(deviation, dim=(-2, -1)).clamp(max=limit.max**0.5 * (1 - limit.eps))
    trace: Tensor = total.square() / (n.squeeze(-1) - 1).clamp(min=1)
    return trace


def _length(x: Float[Tensor, "B G F"]) -> Float[Tensor, "B G"]:
    """Length of each row; not finite where an entry is not, or is too large to be squared."""
    length: Tensor = torch.linalg.vector_norm(x.detach(), dim=-1)
    return length


def _kept(x: Float[Tensor, "B G F"], valid: Bool[Tensor, "B G"]) -> Float[Tensor, "B G F"]:
    """Zeros where a row does not count, put in before any arithmetic: after it NaN would reach the gradient."""
    return x if valid.all() else torch.where(valid.unsqueeze(-1), x, 0)
