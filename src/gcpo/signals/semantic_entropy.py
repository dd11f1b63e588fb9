"""Semantic entropy: how evenly a group's responses spread over meanings.

Source: Kuhn et al., arXiv 2302.09664; as a training signal SEED-GRPO, arXiv 2505.12346.

    SE = - sum_k p_k log p_k,    p_k = share of the group in meaning k,    divided by log n

With q_i the weight of response i, p of its meaning is sum_j [l_i = l_j] q_j, so SE = - sum_i q_i log p_{k(i)}:
no table of meanings is built. q_i = 1/n gives the discrete form; q = softmax(log-probabilities) gives Rao's.

Degenerate: one response, or one meaning, gives 0. A response whose log-probability is NaN is left out.
"""

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


@signal(upper=torch.ones_like, source="arXiv 2302.09664, 2505.12346")
def semantic_entropy(
    labels: Int[Tensor, "B G"],
    log_probs: Float[Tensor, "B G"] | None = None,
    mask: Bool[Tensor, "B G"] | None = None,
    normalize: bool = True,
) -> Float[Tensor, " B"]:
    """Entropy of the meanings a group falls into.

    Args:
        labels: Meaning of each response; only equality inside a group matters.
        log_probs: Log-probability of each response (length-normalised if lengths differ much) for Rao's form;
            None for the discrete form.
        mask: Which responses count.
        normalize: Divide by log n, so that the result lies in [0, 1]; False gives nats.

    Returns:
        (B,), in float32 (float64 if ``log_probs`` is).
    """
    valid = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    if log_probs is None:
        q = valid / valid.sum(-1, keepdim=True).clamp(min=1)
    else:
        logits = groups.promote(log_probs)
        valid = valid & ~logits.isnan()
        q = logits.masked_fill(~valid, -torch.inf).softmax(-1).nan_to_num(0.0)
    same = labels.unsqueeze(-1) == labels.unsqueeze(-2)
    p = (same * q.unsqueeze(-2)).sum(-1)
    # The clamp turns -0.0, and a p that rounding left above 1, into an entropy of 0.
    entropy = -torch.xlogy(q, p).sum(-1).clamp(max=0.0)
    if not normalize:
        return entropy
    n = valid.sum(-1)
    return torch.where(n > 1, entropy / n.clamp(min=2).log(), 0.0)


@signal(upper=torch.ones_like, source="arXiv 2302.09664, 2505.12346")
def rao_semantic_entropy(
    labels: Int[Tensor, "B G"],
    log_probs: Float[Tensor, "B G"],
    lengths: Real[Tensor, "B G"],
    mask: Bool[Tensor, "B G"] | None = None,
) -> Float[Tensor, " B"]:
    """Entropy of the meanings a group falls into, each response weighed by its probability per token.

    Args:
        labels: Meaning of each response; only equality inside a group matters.
        log_probs: Log-probability of each whole response.
        lengths: Number of its tokens; a response without any is left out.
        mask: Which responses count.

    Returns:
        (B,) in [0, 1], in float32 (float64 if ``log_probs`` is).
    """
    per_token = groups.promote(log_probs) / lengths.clamp(min=1)
    return semantic_entropy(labels, torch.where(lengths > 0, per_token, torch.nan), mask)
