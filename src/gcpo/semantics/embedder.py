"""What every source of text geometry shares: a text is encoded once, and steps are texts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo.semantics.memory import Memory
from gcpo.semantics.steps import split_steps


class TextEmbedder(ABC):
    """Vectors of texts. A subclass says how texts are encoded; duplicates and steps are dealt with here.

    Args:
        cache_size: How many texts are remembered between calls, those not asked for the longest forgotten first.
    """

    def __init__(self, cache_size: int = 20_000) -> None:
        self._memory: Memory[str, Tensor] = Memory(cache_size)

    @abstractmethod
    def encode(self, texts: list[str]) -> Float[Tensor, "N D"]:
        """One vector a text; the texts are distinct, and "" stands for all that say nothing."""

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """One vector a text, on the CPU; a text without any non-space character gets zeros, which no signal counts."""
        if not texts:
            return self.embed([""])[:0]
        said = [text if text.strip() else "" for text in texts]
        known = self._memory(said, self._vectors)
        return torch.stack([known[text] for text in said])

    def embed_steps(
        self, texts: Sequence[str], max_steps: int, by: str = "auto"
    ) -> tuple[Float[Tensor, "N S D"], Bool[Tensor, "N S"]]:
        """One vector a step of each text, and which steps exist; ``by`` as ``split_steps`` takes it."""
        steps = [split_steps(text, max_steps, by) for text in texts]
        rows = [s + [""] * (max_steps - len(s)) for s in steps]
        vectors = self.embed([step for row in rows for step in row])
        exists = torch.tensor([[bool(step) for step in row] for row in rows], dtype=torch.bool)
        return vectors.unflatten(0, (len(texts), max_steps)), exists.view(len(texts), max_steps)

    def forget(self) -> None:
        """Forget every text."""
        self._memory.clear()

    def _vectors(self, texts: list[str]) -> list[Tensor]:
        vectors = torch.as_tensor(self.encode(texts)).float().cpu()
        # Cloned: a row that is kept must not keep its whole batch.
        return [v.clone() if text else torch.zeros_like(v) for text, v in zip(texts, vectors, strict=True)]
