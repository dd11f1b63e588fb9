"""Embeddings of text by a sentence-transformers model: each distinct text is encoded once."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class SentenceEncoder:
    """A sentence-transformers model as the source of geometry.

    Args:
        model: Path or hub id, or a loaded ``SentenceTransformer``.

    Raises:
        ImportError: sentence-transformers is not installed.
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, str):
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise ImportError(
                    f"embedding with {model!r} needs sentence-transformers, which is not installed: "
                    'install it with pip install "gcpo[embed]".'
                ) from error
            model = SentenceTransformer(model)
        self.model = model

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """One vector a text; a text without any non-space character gets zeros, which no signal counts."""
        distinct = sorted(set(texts))
        place = {text: i for i, text in enumerate(distinct)}
        vectors = torch.as_tensor(self.model.encode(distinct, convert_to_tensor=True, show_progress_bar=False))
        empty = torch.tensor([not text.strip() for text in distinct], device=vectors.device)
        return vectors.float().masked_fill(empty.unsqueeze(-1), 0)[[place[text] for text in texts]]

    def embed_steps(self, texts: Sequence[str], max_steps: int) -> tuple[Float[Tensor, "N S D"], Bool[Tensor, "N S"]]:
        """One vector a step of each text, and which steps exist."""
        steps = [split_steps(text, max_steps) for text in texts]
        rows = [s + [""] * (max_steps - len(s)) for s in steps]
        vectors = self.embed([step for row in rows for step in row])
        mask = torch.tensor([[bool(step.strip()) for step in row] for row in rows], device=vectors.device)
        return vectors.unflatten(0, (len(texts), max_steps)), mask


def split_steps(text: str, max_steps: int) -> list[str]:
    """The lines of a response that say anything; more than ``max_steps`` have neighbours merged, evenly."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) <= max_steps:
        return lines
    merged: list[list[str]] = [[] for _ in range(max_steps)]
    for i, line in enumerate(lines):
        merged[i * max_steps // len(lines)].append(line)
    return ["\n".join(part) for part in merged]
