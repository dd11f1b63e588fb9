"""Groups of sampled responses: masks, per-group statistics and the policy for degenerate groups.

Shape letters, here and in every file below: B prompt groups, G responses a group, S points a response, D features.
``mask`` (B, G) is True where a response counts; None means all of them.

The policy, kept in this one place and tested for every recipe:

====================================  =====================================  ==================
case                                  signal                                 advantage
====================================  =====================================  ==================
all rewards equal (max == min)        as it is                               exactly 0
one response, or one left by ``mask`` 0                                      0
NaN or infinite reward                the response is masked out             0 for it
zero-norm or non-finite embedding     left out of the geometry               by the rest
identical responses                   0                                      by the rewards
fp16 / bf16 input                     statistics in fp32                     input dtype
====================================  =====================================  ==================
"""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

Mask = Bool[Tensor, "B G"]


def promote(x: Tensor) -> Tensor:
    """``x`` in a dtype fit for statistics: float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def finite(rewards: Real[Tensor, "B G"], mask: Mask | None = None) -> Mask:
    """Where a response counts: inside ``mask`` and with a finite reward."""
    valid = torch.isfinite(rewards)
    return valid if mask is None else valid & mask


def live(rewards: Real[Tensor, "B G"], mask: Mask | None = None) -> Bool[Tensor, " B"]:
    """Groups whose rewards differ, so that they carry a learning signal.

    Tested by max > min. The standard deviation will not do: the fp32 mean of eight rewards of 0.3 is not 0.3.
    """
    low, high = extremes(rewards, mask)
    return high > low


def extremes(rewards: Real[Tensor, "B G"], mask: Mask | None = None) -> tuple[Real[Tensor, " B"], Real[Tensor, " B"]]:
    """Smallest and largest reward that counts; the smallest exceeds the largest where none does."""
    valid = finite(rewards, mask)
    low = rewards.masked_fill(~valid, _largest(rewards)).amin(-1)
    high = rewards.masked_fill(~valid, -_largest(rewards)).amax(-1)
    return low, high


def _largest(x: Tensor) -> float | int:
    return (torch.finfo if x.is_floating_point() else torch.iinfo)(x.dtype).max


def count(mask: Bool[Tensor, "*batch G"], like: Float[Tensor, "..."]) -> Float[Tensor, "*batch 1"]:
    """How many responses count, at least 1 so that it can divide, in the dtype of ``like``."""
    return mask.sum(-1, keepdim=True).clamp(min=1).to(like.dtype)


def mean(x: Float[Tensor, "B G"], mask: Mask) -> Float[Tensor, "B 1"]:
    """Mean over the responses that count; NaN where none does."""
    # nanmean, not a masked sum: TRL reduces in this order, and equal order gives equal bits.
    return x.masked_fill(~mask, torch.nan).nanmean(-1, keepdim=True)


def std(x: Float[Tensor, "B G"], mask: Mask, ddof: int = 1) -> Float[Tensor, "B 1"]:
    """Standard deviation over the responses that count, divided by n - ``ddof``; not finite where n <= ddof."""
    n = mask.sum(-1, keepdim=True).to(x.dtype)
    variance = mean((x - mean(x, mask)) ** 2, mask)
    return (variance * (n / (n - ddof))).sqrt()


def unit(
    x: Float[Tensor, "B *points D"], mask: Bool[Tensor, "B *points"] | None = None
) -> tuple[Float[Tensor, "B *points D"], Bool[Tensor, "B *points"]]:
    """Vectors scaled to length 1, and which of them count.

    A vector that is masked out, zero or not finite comes back as zeros and does not count. Lengths are taken after
    division by the largest entry, so that 1e30 does not overflow and fp16 input keeps its precision.
    """
    x = promote(x)
    valid = torch.isfinite(x).all(-1, keepdim=True) & (x != 0).any(-1, keepdim=True)
    if mask is not None:
        valid &= mask.unsqueeze(-1)
    # What does not count is replaced before any arithmetic: where after it would pass NaN into the gradient.
    x = torch.where(valid, x, 0)
    scaled = x / torch.where(valid, x, 1).abs().amax(-1, keepdim=True)
    norm = torch.where(valid, scaled, 1).norm(dim=-1, keepdim=True)
    return scaled / norm, valid.squeeze(-1)
