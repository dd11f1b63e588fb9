"""Score dispersion: how far the policy gradients of a group's responses disagree.

Source: this project. The variance of the group's estimator (1/G) sum_i A_i s_i, s_i = grad log pi(o_i | q), is
tr Cov(A s) / G, and a signal is as good as its geometry is close to that of the scores. Near relatives: last-layer
gradients as embeddings, BADGE (arXiv 1906.03671); their norms, GraNd and EL2N (arXiv 2107.07075).

    SD          = tr Cov(s)   = 1 / (n - 1) sum_i |s_i - mean s|^2
    weighted SD = tr Cov(A s)

s_i are features whose inner products are those of the scores, or estimate them: ``gcpo.semantics.scores`` has both for
the output layer. Neither is free of scale, since the size of a gradient counts.

Degenerate: one response, or identical ones, give 0. Responses with non-finite features or advantages are left out; a
score of zero is a score and stays. What exceeds the largest number of its dtype is that number.
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
    return _trace(x, groups.finite(_largest(x), mask))


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
    x, a = groups.promote(scores), groups.promote(advantages).unsqueeze(-1)
    valid = groups.finite(_largest(x), groups.finite(advantages, mask))
    keep = valid.unsqueeze(-1)
    return _trace(_bounded(torch.where(keep, a, 0) * torch.where(keep, x, 0)), valid)


def _trace(x: Float[Tensor, "B G F"], valid: Bool[Tensor, "B G"]) -> Float[Tensor, " B"]:
    """Trace of the sample covariance, centred: the difference of two large sums loses near-duplicates."""
    # What does not count is replaced before any arithmetic: where after it would pass NaN into the gradient.
    x = torch.where(valid.unsqueeze(-1), x, 0)
    n = groups.count(valid, x)
    centre = (x / n.unsqueeze(-1)).sum(-2, keepdim=True)  # not sum / n, which overflows
    deviation = _bounded(x - centre) * valid.unsqueeze(-1)
    # A product, not a square: the gradient of that has 2 x, which may overflow by itself.
    return _bounded((deviation * deviation).sum((-2, -1)) / (n.squeeze(-1) - 1).clamp(min=1))


def _largest(x: Float[Tensor, "B G F"]) -> Float[Tensor, "B G"]:
    """Largest entry of each row; not finite where any entry is not."""
    largest: Tensor = torch.linalg.vector_norm(x.detach(), torch.inf, dim=-1)
    return largest


def _bounded(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What overflowed, as the largest number there is; it passes no gradient."""
    largest = torch.finfo(x.dtype).max
    return x.clamp(-largest, largest)
