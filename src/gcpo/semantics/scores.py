"""Score geometry: gradients of responses' log-probabilities by the output layer, in closed form.

Source: this project. The closed form is that of BADGE (arXiv 1906.03671); that both factors of such a gradient can be
projected apart is LoGra's (arXiv 2405.13954); the projection is feature hashing (arXiv 0902.2206).

With logits z_t = W h_t (+ b), W (V, D), and p_t = softmax(z_t / tau), the score of response i is the matrix

    S_i = d/dW sum_t log p_t(y_t) = 1/tau sum_t d_t h_t^T,    d_t = onehot(y_t) - p_t

Exact     ``score_gram``: inner products S_i . S_j of a group, over V in chunks, so that no (N, T, V) tensor is made.
Sketched  ``score_features``: R^T S_i Q of k m numbers. Row v of R has one entry, a random sign in column v mod k; Q is
          alike. So inner products are unbiased, a projection costs one sum, and k >= V with m >= D is exact.

h_t is the state that predicts token t, one position before it, as the output layer takes it. Given logits may come
from any head, but S_i is the gradient by W only if they are W h_t (+ b): a soft cap (Gemma 2) or a factor on the
logits (Cohere, Granite) has a derivative that is left out here.

Degenerate: a response without tokens has a score of zero. What ``mask`` leaves out may be anything, NaN too. One
non-finite token makes its response's features non-finite, which the signals leave out.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo import groups

Block = tuple[slice, slice]
"""Some tokens of some responses."""

# Logits worked on at a time: as many as a processor's cache holds, or as make a launch or a pass over W worth while.
_IN_CACHE, _IN_MEMORY = 2**19, 2**24


class Fold(NamedTuple):
    """A vector of n numbers to ``size``: entry v times its sign is added to bucket v mod ``size``."""

    signs: Float[Tensor, " n"]
    size: int

    def apply(self, x: Float[Tensor, "... n"], out: Tensor | None = None) -> Float[Tensor, "... size"]:
        """``x`` folded, with ``out`` (``x`` itself, say) as memory to work in."""
        x = torch.mul(x, self.signs.to(x), out=out)
        whole = x.shape[-1] // self.size * self.size
        folded: Tensor = x[..., :whole].unflatten(-1, (-1, self.size)).sum(-2)
        folded[..., : x.shape[-1] - whole] += x[..., whole:]
        return folded


class Projection(NamedTuple):
    """How the two sides of a score shrink: R of the vocabulary, Q of the states."""

    tokens: Fold
    states: Fold


def draw_projection(
    vocabulary: int, dim: int, k: int = 64, m: int = 64, seed: int = 0, device: torch.device | str = "cpu"
) -> Projection:
    """Random signs, drawn on the CPU so that they are the same on every device.

    Args:
        vocabulary: V, the rows of the output layer.
        dim: D, its columns.
        k: Numbers that stand for a token's error d_t; V or more loses nothing.
        m: Numbers that stand for a state h_t; D or more loses nothing.
        seed: Of the signs.
        device: Where the projection will be used.
    """
    generator = torch.Generator().manual_seed(seed)

    def fold(n: int, size: int) -> Fold:
        signs = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
        return Fold(signs.to(device), min(n, size))

    return Projection(fold(vocabulary, k), fold(dim, m))


@torch.no_grad()
def score_features(
    logits: Float[Tensor, "N T V"],
    states: Float[Tensor, "N T D"],
    ids: Int[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    projection: Projection,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "N F"], Float[Tensor, " N"]]:
    """Sketched scores from a forward pass that was made anyway.

    Args:
        logits: What the model gave at the positions that predict ``ids``; left as they are.
        states: What its output layer took there.
        ids: Tokens of the responses.
        mask: Which tokens count.
        projection: From ``draw_projection``.
        temperature: tau, which divides the logits.

    Returns:
        Features, F = k m, and the log-probability of each response; in float32 (float64 if ``states`` are).
    """
    size = _IN_CACHE if logits.device.type == "cpu" else _IN_MEMORY
    blocks = _blocks(mask, size // logits.shape[-1])
    return _sketch(((block, logits[block]) for block in blocks), states, ids, mask, projection, temperature)


@torch.no_grad()
def score_features_of_states(
    states: Float[Tensor, "N T D"],
    head: Float[Tensor, "V D"],
    ids: Int[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    projection: Projection,
    temperature: float = 1.0,
    bias: Float[Tensor, " V"] | None = None,
) -> tuple[Float[Tensor, "N F"], Float[Tensor, " N"]]:
    """``score_features`` where no logits were kept: they are made block by block from the states and the head W."""
    blocks = _blocks(mask, _IN_MEMORY // head.shape[0])
    made = ((block, torch.nn.functional.linear(states[block].to(head), head, bias).to(ids.device)) for block in blocks)
    return _sketch(made, states, ids, mask, projection, temperature)


def _blocks(mask: Bool[Tensor, "N T"], tokens: int) -> Iterator[Block]:
    """A batch in parts of about ``tokens``, several responses or a piece of one; none where no token counts."""
    N, T = mask.shape
    height, width = max(1, tokens // max(1, T)), max(1, tokens)
    mask = mask.cpu()
    for i in range(0, N, height):
        for j in range(0, T, width):
            block = slice(i, i + height), slice(j, j + width)
            if mask[block].any():
                yield block


def _sketch(
    logits: Iterable[tuple[Block, Tensor]],
    states: Tensor,
    ids: Tensor,
    mask: Tensor,
    projection: Projection,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    R, Q = projection
    hidden = ~mask.unsqueeze(-1)
    h = Q.apply(groups.promote(states)).masked_fill_(hidden, 0).div_(temperature)
    ids = ids.masked_fill(~mask, 0).unsqueeze(-1)
    d, log_probs = h.new_zeros(*mask.shape, R.size), h.new_zeros(mask.shape)
    buffer = h.new_empty(0)
    for block, z in logits:
        if temperature != 1:
            z = groups.promote(z) / temperature
        # One buffer for all blocks: on a CPU fresh memory costs more than the arithmetic done in it.
        log_p = torch.log_softmax(z, -1, dtype=h.dtype, out=buffer.resize_(z.shape))
        y = ids[block]
        log_probs[block] = log_p.gather(-1, y).squeeze(-1)
        p = log_p.exp_()
        d[block] = _errors(R.apply(p, out=p), y, R)
    features = d.masked_fill_(hidden, 0).mT @ h
    return features.flatten(1), log_probs.masked_fill_(~mask, 0).sum(-1)


def _errors(p: Float[Tensor, "... k"], y: Int[Tensor, "... 1"], R: Fold) -> Float[Tensor, "... k"]:
    """R d_t in place of R p_t."""
    return p.neg_().scatter_add_(-1, y % R.size, R.signs.to(p)[y])


@torch.no_grad()
def score_features_of_sketch(
    sketch: Float[Tensor, "N T k"],
    states: Float[Tensor, "N T D"],
    ids: Int[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    projection: Projection,
    temperature: float = 1.0,
) -> Float[Tensor, "N F"]:
    """``score_features`` where of each distribution only its sketch R p_t was kept."""
    R, Q = projection
    hidden = ~mask.unsqueeze(-1)
    h = Q.apply(groups.promote(states)).masked_fill_(hidden, 0).div_(temperature)
    d = _errors(sketch.to(h, copy=True), ids.masked_fill(~mask, 0).unsqueeze(-1), R)
    features: Tensor = d.masked_fill_(hidden, 0).mT @ h
    return features.flatten(1)


@torch.no_grad()
def score_gram(
    states: Float[Tensor, "N T D"],
    head: Float[Tensor, "V D"],
    ids: Int[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    group_size: int,
    temperature: float = 1.0,
    bias: Float[Tensor, " V"] | None = None,
    chunk: int = 1024,
) -> Float[Tensor, "B G G"]:
    """Inner products S_i . S_j of each group's scores, exactly, from two passes over the rows of the head.

    Args:
        states: What the output layer takes at the positions that predict ``ids``.
        head: Its weight W.
        ids: Tokens of the responses, groups contiguous.
        mask: Which tokens count.
        group_size: G.
        temperature: tau, which divides the logits.
        bias: b of the output layer.
        chunk: Rows of W at a time; memory is that of G ``chunk`` D numbers.

    Returns:
        (B, G, G) in float64.

    Raises:
        ValueError: The number of responses is not a multiple of ``group_size``.
    """
    if states.shape[0] % group_size:
        raise ValueError(f"responses must come in groups of {group_size}, found {states.shape[0]}.")
    h = groups.promote(states).masked_fill(~mask.unsqueeze(-1), 0)
    batch = zip(h.split(group_size), ids.split(group_size), strict=True)
    return torch.stack([_gram(h, ids, _Head(head, bias, temperature, chunk)) for h, ids in batch])


class _Head(NamedTuple):
    weight: Tensor
    bias: Tensor | None
    temperature: float
    chunk: int

    def logits(self, h: Float[Tensor, "G T D"]) -> Iterator[tuple[int, Float[Tensor, "G T c"]]]:
        """Logits over the temperature by chunks of the vocabulary, with the first row of each."""
        for start in range(0, self.weight.shape[0], self.chunk):
            rows = slice(start, start + self.chunk)
            bias = None if self.bias is None else self.bias[rows].to(h)
            yield start, torch.nn.functional.linear(h, self.weight[rows].to(h), bias) / self.temperature


def _gram(h: Float[Tensor, "G T D"], ids: Int[Tensor, "G T"], head: _Head) -> Float[Tensor, "G G"]:
    """Gram matrix of one group; where h is 0 a token adds nothing, whatever its id."""
    log_z = h.new_full(ids.shape, -torch.inf)
    for _, z in head.logits(h):
        log_z = torch.logaddexp(log_z, z.logsumexp(-1))
    gram = h.new_zeros(len(h), len(h), dtype=torch.float64)
    for start, z in head.logits(h):
        d = -(z - log_z.unsqueeze(-1)).exp()
        place = (ids - start).unsqueeze(-1)
        inside = (place >= 0) & (place < z.shape[-1])
        d.scatter_add_(-1, place.clamp(0, z.shape[-1] - 1), inside.to(d))
        S = (d.mT @ h).flatten(1).double()
        gram += S @ S.mT
    return gram / head.temperature**2


def isometric(gram: Float[Tensor, "B G G"]) -> Float[Tensor, "B G G"]:
    """Features with the given inner products, so that what takes scores takes exact ones too.

    By the eigendecomposition, so entries below the rounding of the largest are lost. A response whose own product is
    not finite comes back as NaN, and the others as if it were not there.
    """
    bad = ~gram.diagonal(dim1=-2, dim2=-1).isfinite()
    values, vectors = torch.linalg.eigh(gram.masked_fill(bad.unsqueeze(-1) | bad.unsqueeze(-2), 0))
    features: Tensor = vectors * values.clamp(min=0).sqrt().unsqueeze(-2)
    return features.masked_fill_(bad.unsqueeze(-1), torch.nan)
