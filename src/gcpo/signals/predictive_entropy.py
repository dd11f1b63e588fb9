"""Predictive entropy: how improbable the policy finds its own responses.

Source: Malinin & Gales, arXiv 2002.07650; on responses of language models Kuhn et al., arXiv 2302.09664.

    PE = - mean_i log p(o_i | q)                           nats a response
    normalised PE = - mean_i log p(o_i | q) / |o_i|        nats a token

Both are Monte Carlo estimates of an entropy. They measure surprise, not disagreement: identical responses do not give
0, though 0 is the least value. PE grows with length.

Degenerate: one response gives 0, as in every signal. A response without a finite log-probability, or without tokens,
is left out.
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from gcpo import groups
from gcpo.signals.registry import signal


@signal(upper=None, source="arXiv 2002.07650, 2302.09664")
def predictive_entropy(
    log_probs: Float[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, " B"]:
    """Mean negative log-probability of a group's responses.

    Args:
        log_probs: Log-probability of each whole response.
        mask: Which responses count.

    Returns:
        (B,) in nats, at least 0 for probabilities, in float32 (float64 if ``log_probs`` is).
    """
    log_p = groups.promote(log_probs)
    valid = groups.finite(log_p, mask)
    return torch.where(valid.sum(-1) > 1, -groups.mean(log_p, valid).squeeze(-1), 0)


@signal(upper=None, source="arXiv 2002.07650, 2302.09664")
def normalized_predictive_entropy(
    log_probs: Float[Tensor, "B G"], lengths: Real[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, " B"]:
    """Mean negative log-probability per token of a group's responses.

    Args:
        log_probs: Log-probability of each whole response.
        lengths: Number of its tokens.
        mask: Which responses count.

    Returns:
        (B,) in nats a token, in float32 (float64 if ``log_probs`` is).
    """
    counted = lengths > 0 if mask is None else mask & (lengths > 0)
    return predictive_entropy(groups.promote(log_probs) / lengths.clamp(min=1), counted)
