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
identical responses                   its least value: 0, of counts 1 [1]_   by the rewards
fp16 / bf16 input                     statistics in fp32                     input dtype
====================================  =====================================  ==================

.. [1] Kernel language entropy starts above 0; EigenScore and the predictive entropies measure size and surprise, of
   which identical responses have some.
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

    A vector that is masked out, zero or not finite comes back as zeros and does not count.
    """
    x, norm, valid = tame(x, mask)
    return x / norm.unsqueeze(-1), valid


def gram(
    x: Float[Tensor, "B G D"], mask: Mask | None = None, rescale: bool = True
) -> tuple[Float[Tensor, "B G D"], Float[Tensor, "B G G"], Mask]:
    """The vectors as ``tame`` has them, their inner products, and which of them count; no pass but the product."""
    x = promote(x)
    products = x @ x.mT
    valid = _plain(products.diagonal(dim1=-2, dim2=-1).sqrt(), mask)
    if not valid.all():
        x, _, valid = tame(x, mask, rescale)
        products = x @ x.mT
    return x, products, valid


def cosines(x: Float[Tensor, "B G D"], mask: Mask | None = None) -> tuple[Float[Tensor, "B G G"], Mask]:
    """Cosine of every pair of vectors, 0 where one of them does not count, and which of them count.

    Exact to the rounding of 1, so not for telling near-duplicates apart.
    """
    _, products, valid = gram(x, mask)
    length = torch.where(valid, products.diagonal(dim1=-2, dim2=-1), 1).rsqrt()
    return products * length.unsqueeze(-1) * length.unsqueeze(-2), valid


def _plain(norm: Float[Tensor, "B *points"], mask: Bool[Tensor, "B *points"] | None) -> Bool[Tensor, "B *points"]:
    """Where a vector of such length counts and can be squared in float32 without loss; NaN compares false."""
    plain = (norm > 1e-12) & (norm < 1e15)
    return plain if mask is None else plain & mask


def tame(
    x: Float[Tensor, "B *points D"], mask: Bool[Tensor, "B *points"] | None = None, rescale: bool = True
) -> tuple[Float[Tensor, "B *points D"], Float[Tensor, "B *points"], Bool[Tensor, "B *points"]]:
    """Vectors fit for arithmetic, their lengths, and which of them count.

    A vector that is masked out, zero or not finite comes back as zeros of length 1. One that is too long or too short
    to be squared is divided by its largest entry, unless its scale counts (``rescale``). All others keep their bits,
    whatever else is in the batch.
    """
    x = promote(x)
    norm = torch.linalg.vector_norm(x, dim=-1)
    plain = _plain(norm, mask)
    if plain.all():  # nearly always, and three passes over the data less
        return x, norm, plain
    if mask is not None and (plain | ~mask).all():  # nothing is odd but what is masked out
        norm = torch.linalg.vector_norm(torch.where(mask.unsqueeze(-1), x, 1), dim=-1)
        return torch.where(mask.unsqueeze(-1), x, 0), torch.where(mask, norm, 1), mask
    valid = torch.isfinite(x).all(-1) & (x != 0).any(-1)
    if mask is not None:
        valid = valid & mask
    # What does not count is replaced before any arithmetic: where after it would pass NaN into the gradient.
    x = torch.where(valid.unsqueeze(-1), x, 0)
    if rescale:
        largest = x.detach().abs().amax(-1)
        x = x / torch.where(valid & ~plain, largest, 1).unsqueeze(-1)
    norm = torch.linalg.vector_norm(torch.where(valid.unsqueeze(-1), x, 1), dim=-1)
    return x, torch.where(valid, norm, 1), valid
