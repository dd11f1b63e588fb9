"""Inner products of per-response gradients, summed up layer by layer.

A layer's gradients are M_i = sum_t l_it r_it^T. Of the two ways to <M_i, M_j> the one with fewer products is taken:

    by matrices  M_i . M_j, M in chunks that a cache holds                         2 G T n m + 2 G^2 n m
    by tokens    sum_{t,u} (l_it . l_ju)(r_it . r_ju), half of it by symmetry      (G T)^2 (n + m)

A table of embeddings touches a few rows only. Where it is the head as well (tied), its gradient is E_i + M_i, and the
cross terms need of the head's M_i those same rows, which are kept.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gcpo.probe.layers import Outer, Part, Rows, Vector

# Numbers of M worked on at a time: as many as a processor's cache holds, or as make a launch worth while.
_IN_CACHE, _IN_MEMORY = 2**18, 2**25


class GramSum:
    """Gram matrices (B, G, G) of groups, to which layers add.

    Args:
        ids: What the model is given, groups contiguous.
        group_size: G.
        tied: Names of tables that are the output layer as well.
    """

    def __init__(self, ids: Int[Tensor, "N L"], group_size: int, tied: set[str]) -> None:
        self.total = torch.zeros(
            len(ids) // group_size, group_size, group_size, dtype=torch.float64, device=ids.device
        )
        self._ids, self._size, self._tied = ids, group_size, tied
        self._head: dict[tuple[str, int], Tensor] = {}

    def add(self, name: str, rows: slice, part: Part) -> None:
        """Add what one layer's calls on the responses ``rows``, whole groups, give to its parameter ``name``."""
        first = rows.start // self._size
        if isinstance(part, Vector):
            V = part.value.unflatten(0, (-1, self._size))
            self.total[first : first + len(V)] += V @ V.mT
        elif isinstance(part, Outer):
            for b, K in _outer(part, self._size):
                self.total[first + b : first + b + len(K)] += K
            if name in self._tied:
                self._keep(name, first, part)
        else:
            for b in range(len(part.ids) // self._size):
                group = slice(b * self._size, (b + 1) * self._size)
                self._rows(name, first + b, Rows(part.ids[group], part.right[group]))

    def _keep(self, name: str, first: int, part: Outer) -> None:
        """The rows of the head's gradients that the inputs of each group touch."""
        pairs = zip(part.left.split(self._size), part.right.split(self._size), strict=True)
        for b, (left, right) in enumerate(pairs, first):
            touched = self._ids[b * self._size : (b + 1) * self._size].unique()
            self._head[name, b] = left[..., touched].mT @ right

    def _rows(self, name: str, b: int, part: Rows) -> None:
        touched, place = part.ids.unique(return_inverse=True)
        G, U = len(place), len(touched)
        place = (place + U * torch.arange(G, device=place.device).unsqueeze(-1)).flatten()
        E = part.right.new_zeros(G * U, part.right.shape[-1]).index_add_(0, place, part.right.flatten(0, 1))
        E = E.view(G, -1)
        self.total[b] += E @ E.T
        if name in self._tied:
            if not torch.equal(part.ids, self._ids[b * G : (b + 1) * G]):
                raise RuntimeError(f"{name} is tied and was called with other ids than the model's: choose others.")
            cross = E @ self._head.pop((name, b)).flatten(1).T
            self.total[b] += cross + cross.T


def _outer(part: Outer, G: int) -> Iterator[tuple[int, Float[Tensor, "b G G"]]]:
    """Products of some groups at a time, with the number of the first."""
    left, right = part
    (N, T, n), m = left.shape, right.shape[-1]
    if _tokens_are_fewer(G, T, n, m):
        yield from ((b, _by_tokens(left[b * G :][:G], right[b * G :][:G]).unsqueeze(0)) for b in range(N // G))
        return
    if n < m:  # chunks are rows of the longer side, which leaves more of the shorter in a cache
        left, right, n, m = right, left, m, n
    budget = _IN_CACHE if left.device.type == "cpu" else _IN_MEMORY
    height, width = max(1, budget // (G * n * m)), max(1, budget // (G * m))
    buffer = left.new_empty(0)
    for b in range(0, N // G, height):
        block = slice(b * G, (b + height) * G)
        for chunk in left[block].split(width, -1):
            # One buffer for all chunks: on a CPU fresh memory costs a tenth of the product.
            M = torch.bmm(chunk.mT, right[block], out=buffer.resize_(len(chunk), chunk.shape[-1], m))
            M = M.flatten(1).unflatten(0, (-1, G))
            yield b, M @ M.mT


def _tokens_are_fewer(G: int, T: int, n: int, m: int) -> bool:
    return G * T * T * (n + m) < 2 * (T + G) * n * m


def _by_tokens(left: Float[Tensor, "G T n"], right: Float[Tensor, "G T m"]) -> Float[Tensor, "G G"]:
    G, T, _ = left.shape
    K = left.new_zeros(G, G, dtype=torch.float64)
    for i in range(G):
        products = (left[i] @ left[: i + 1].flatten(0, 1).T) * (right[i] @ right[: i + 1].flatten(0, 1).T)
        K[i, : i + 1] = products.sum(0).view(-1, T).sum(1)
    return K + K.tril(-1).T
