r"""Hashed n-grams: an embedding of spelling that needs no model and no library.

Source: signed feature hashing, Weinberger et al., arXiv 0902.2206.

    v_d = sum_f s(f) [h(f) = d] log(1 + n_f),    then divided by |v|

over the features f of a text with their counts n_f: its words (numbers and signs are words) and the n-grams of
characters of each word between its boundaries. h and the sign s are bits of one BLAKE2 digest, so that vectors agree
across processes and machines. The signs make the inner product of two vectors, before the division, an unbiased
estimate of that of their features. Words that share a stem are near, texts that say the same in other words are not;
the order of words is lost.

Degenerate: a text without any non-space character gives zeros.
"""

import re
from collections import Counter
from functools import lru_cache
from hashlib import blake2b

import torch
from jaxtyping import Float
from torch import Tensor

from gcpo.semantics.embedder import TextEmbedder

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d]+|[^\w\s]|_")


class HashedNgrams(TextEmbedder):
    """Hashed words and n-grams of characters as the source of geometry.

    Args:
        dim: D, number of buckets.
        shortest: Characters of the shortest n-gram, boundaries included.
        longest: Characters of the longest.
        cache_size: How many texts are remembered between calls.
    """

    def __init__(self, dim: int = 512, shortest: int = 2, longest: int = 4, cache_size: int = 20_000) -> None:
        super().__init__(cache_size)
        self.dim = dim
        self._sizes = range(shortest, longest + 1)

    def encode(self, texts: list[str]) -> Float[Tensor, "N D"]:
        """Unit vectors of signed counts."""
        vectors = torch.zeros(len(texts), self.dim)
        for vector, text in zip(vectors, texts, strict=True):
            counts = self.features(text)
            if counts:
                digests = torch.tensor([_digest(feature) for feature in counts])
                weight = torch.tensor(list(counts.values()), dtype=torch.float32).log1p()
                vector.index_add_(0, digests // 2 % self.dim, weight * (1 - 2 * (digests % 2)))
        return torch.nn.functional.normalize(vectors, dim=-1)

    def features(self, text: str) -> Counter[str]:
        """Words and n-grams of a text, with their counts; the boundaries of a word are written as spaces."""
        counts: Counter[str] = Counter()
        for word, n in Counter(_WORD.findall(text.casefold())).items():
            for feature in _spelling(word, self._sizes):
                counts[feature] += n
        return counts


@lru_cache(maxsize=100_000)
def _spelling(word: str, sizes: range) -> tuple[str, ...]:
    """A word and its n-grams, each once."""
    bounded = f" {word} "
    grams = {bounded[i : i + n] for n in sizes for i in range(len(bounded) - n + 1)}
    return tuple(sorted(grams | {bounded}))


@lru_cache(maxsize=200_000)
def _digest(feature: str) -> int:
    return int.from_bytes(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "big")
