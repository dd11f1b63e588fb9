"""Lexical dispersion: how little the words of a group's responses overlap.

Source: lexical similarity (Fomicheva et al., arXiv 2005.10608) by ROUGE-L (Lin 2004).

    lexical = mean_{i<j} (1 - F(a_i, a_j)),    F = 2 LCS(a_i, a_j) / (|a_i| + |a_j|)

a_i are the tokens of response i, LCS the length of their longest common subsequence, found by rapidfuzz for each pair
of distinct texts once. Tokens are runs of letters and digits, and single other signs: 60-36 is not 60+36.

Degenerate: one response, or identical ones, give 0. Two texts without tokens are the same.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo.signals.registry import signal

_TOKEN = re.compile(r"\w+|[^\w\s]")


@signal(upper=torch.ones_like, source="arXiv 2005.10608; ROUGE-L, Lin 2004")
def lexical_dispersion(texts: Sequence[Sequence[str]], mask: Bool[Tensor, "B G"] | None = None) -> Float[Tensor, " B"]:
    """Mean ROUGE-L distance between a group's responses.

    Args:
        texts: B groups of G responses.
        mask: Which responses count.

    Returns:
        (B,) in [0, 1], in float32, on the device of ``mask``.
    """
    counted = [[True] * len(group) for group in texts] if mask is None else mask.tolist()
    chosen = [
        [text for text, counts in zip(group, row, strict=True) if counts]
        for group, row in zip(texts, counted, strict=True)
    ]
    device = None if mask is None else mask.device
    return torch.tensor([_dispersion(group) for group in chosen], dtype=torch.float32, device=device)


def _dispersion(texts: Sequence[str]) -> float:
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    n = len(texts)
    if n < 2:
        return 0.0
    distinct, times = np.unique(texts, return_counts=True)
    words = _spell([_TOKEN.findall(text.casefold()) for text in distinct])
    # Indel distance is |a| + |b| - 2 LCS; divided by |a| + |b| it is 1 - F.
    distance = cdist(words, words, scorer=Indel.normalized_distance, dtype=np.float64)
    return float(times @ distance @ times / (n * (n - 1)))


def _spell(tokens: Sequence[Sequence[str]]) -> list[str]:
    """Each distinct token as one character, on which rapidfuzz is twenty times as fast as on lists."""
    letters: dict[str, str] = {}
    return ["".join(letters.setdefault(token, chr(0xF0000 + len(letters))) for token in row) for row in tokens]
