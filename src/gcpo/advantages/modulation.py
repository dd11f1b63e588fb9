"""Modulation: from calibrated uncertainty u in [0, 1] to a group's weight, 1 at u = 0 and falling.

Source: linear, exponential and focal damping are named by SEED-GRPO, arXiv 2505.12346; the rational one is what a
public port of its code uses. alpha >= 0 sets the strength; alpha = 0 gives weight 1.

=========== ====================
name        f(u, alpha)
=========== ====================
linear      max(1 - alpha u, 0)
exponential exp(-alpha u)
focal       (1 - u)^alpha
rational    1 / (1 + alpha u)
=========== ====================
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Modulation = Callable[[Float[Tensor, " B"], float], Float[Tensor, " B"]]


def linear(u: Float[Tensor, " B"], alpha: float) -> Float[Tensor, " B"]:
    """Falls in proportion, and ends at 0."""
    return (1 - alpha * u).clamp(min=0)


def exponential(u: Float[Tensor, " B"], alpha: float) -> Float[Tensor, " B"]:
    """Falls by the factor exp(-alpha) over the range of u."""
    return torch.exp(-alpha * u)


def focal(u: Float[Tensor, " B"], alpha: float) -> Float[Tensor, " B"]:
    """Falls to 0 at u = 1, ever later for small alpha."""
    return (1 - u) ** alpha


def rational(u: Float[Tensor, " B"], alpha: float) -> Float[Tensor, " B"]:
    """Falls fast at first and never reaches 0."""
    return 1 / (1 + alpha * u)


MODULATIONS: dict[str, Modulation] = {
    "linear": linear,
    "exponential": exponential,
    "focal": focal,
    "rational": rational,
}


def renormalize(weights: Float[Tensor, " B"], live: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Weights with mean 1 over the live groups, so that a method is not confounded with its learning rate.

    If no live group has weight, the weights come back as they are.
    """
    total = torch.where(live, weights, 0).sum()
    return torch.where(total > 0, weights * live.sum() / total.clamp(min=torch.finfo(weights.dtype).tiny), weights)
