"""Per-response gradients as vectors: all of them, or so few numbers a layer that inner products are kept on average.

Source: projecting both factors of a layer's gradient is LoGra's (arXiv 2405.13954), that sketched gradients of a pool
can be kept and compared TRAK's (arXiv 2303.14186), the projection feature hashing (arXiv 0902.2206).

    M_i = sum_t l_it r_it^T  ->  R M_i Q^T = sum_t (R l_it)(Q r_it)^T,    R (k, n), Q (m', m) as ``scores.Fold`` has it

E <R M_i Q^T, R M_j Q^T> = <M_i, M_j>. Every parameter gets at most s^2 numbers, s as large as ``dim`` allows, so short
vectors are kept whole and a dim of P loses nothing. Same names, shapes, dim and seed: same projection, on any device.

``Halves`` are two independent sketches of half the size, side by side and scaled so that inner products are their
mean. What is linear in the products, as both variances are, is then known twice (``estimates``): half the difference
of the two is an error of the mean.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gcpo.probe.layers import Outer, Part, Vector
from gcpo.semantics.scores import Fold

_DENSE = 2**20
"""Entries of a fold that is worth a matrix: a product is faster than sums over strides."""


class _Side:
    """How one side of a matrix becomes short."""

    def __init__(self, fold: Fold) -> None:
        self.fold, n = fold, len(fold.signs)
        self._matrix: Tensor | None = None
        if fold.size < n and n * fold.size <= _DENSE:
            rows = torch.arange(n, device=fold.signs.device)
            self._matrix = fold.signs.new_zeros(n, fold.size)
            self._matrix[rows, rows % fold.size] = fold.signs

    def __call__(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... size"]:
        """``x`` folded."""
        return self.fold.apply(x) if self._matrix is None else x @ self._matrix.to(x)


class _Place(NamedTuple):
    """Where a parameter's numbers are kept, as a matrix, and how its sides become so short."""

    at: slice
    left: _Side
    right: _Side


class Features:
    """Features (N, F) of responses, to which layers add.

    Args:
        like: Dtype and device of the features.
        responses: N.
        shapes: Of the parameters, in the order in which they are kept.
        dim: At most so many numbers in all; None keeps the gradients themselves.
        seed: Of the signs.
    """

    def __init__(
        self, like: Tensor, responses: int, shapes: dict[str, torch.Size], dim: int | None, seed: int
    ) -> None:
        sides = {name: shape if len(shape) == 2 else torch.Size([shape.numel(), 1]) for name, shape in shapes.items()}
        short = dict(sides) if dim is None else _shorten(sides, dim)
        generator = torch.Generator().manual_seed(seed)

        def side(n: int, size: int) -> _Side:
            signs = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
            return _Side(Fold((torch.ones(n) if dim is None else signs).to(like), size))

        self._places, end = {}, 0
        for name, (n, m) in sides.items():
            height, width = short[name]
            self._places[name] = _Place(slice(end, end + height * width), side(n, height), side(m, width))
            end += height * width
        self.total = like.new_zeros(responses, end)

    def clear(self, responses: int) -> None:
        """Begin anew, with zeros for so many responses."""
        self.total = self.total.new_zeros(responses, self.total.shape[1])

    def add(self, name: str, rows: slice, part: Part) -> None:
        """Add what one layer's calls on the responses ``rows`` give to its parameter ``name``."""
        at, left, right = self._places[name]
        total = self.total[rows, at]
        if isinstance(part, Vector):
            value = part.value.unflatten(1, (len(left.fold.signs), -1))
            total += left(right(value).mT).mT.flatten(1).to(total.device)
        elif isinstance(part, Outer):
            total += (left(part.left).mT @ right(part.right)).flatten(1).to(total.device)  # layers may lie on several
        else:
            values = right(part.right) * left.fold.signs[part.ids].unsqueeze(-1)
            place = (part.ids % left.fold.size).unsqueeze(-1).expand_as(values)
            shape = len(values), left.fold.size, right.fold.size
            total += values.new_zeros(shape).scatter_add_(1, place, values).flatten(1)


class Halves:
    """Two sketches of ``dim // 2`` numbers each, fed together; as ``Features`` otherwise."""

    def __init__(self, like: Tensor, responses: int, shapes: dict[str, torch.Size], dim: int, seed: int) -> None:
        if dim < 2 * len(shapes):
            raise ValueError(f"dim must be at least twice the number of parameters, {2 * len(shapes)}, found {dim}.")
        self._both = [Features(like, responses, shapes, dim // 2, 2 * seed + i) for i in range(2)]

    @property
    def total(self) -> Tensor:
        """Features (N, F), the first half's first."""
        return torch.cat([half.total for half in self._both], dim=-1) / math.sqrt(2)

    def add(self, name: str, rows: slice, part: Part) -> None:
        """To both."""
        for half in self._both:
            half.add(name, rows, part)


def estimates(features: Float[Tensor, "N F"], group_size: int) -> Float[Tensor, "2 B G G"]:
    """Inner products within each group by either of two ``Halves``, in float64."""
    s = features.double().unflatten(0, (-1, group_size)).unflatten(-1, (2, -1)).movedim(-2, 0)
    products: Tensor = 2 * s @ s.mT
    return products


def _shorten(sides: dict[str, torch.Size], dim: int) -> dict[str, tuple[int, int]]:
    """Sides of at most s^2 numbers a parameter, for the largest s that keeps within ``dim``."""
    if dim < len(sides):
        raise ValueError(f"dim must be at least the number of parameters, {len(sides)}, found {dim}.")
    low, high = 1, max(max(side) for side in sides.values())
    while low < high:
        s = (low + high + 1) // 2
        fits = sum(math.prod(_short(side, s)) for side in sides.values()) <= dim
        low, high = (s, high) if fits else (low, s - 1)
    return {name: _short(side, low) for name, side in sides.items()}


def _short(side: torch.Size, s: int) -> tuple[int, int]:
    """Both sides s or, where one is shorter than that, the other so much longer."""
    n, m = side
    return min(n, s * s // min(m, s)), min(m, s * s // min(n, s))
