"""Embeddings of text by a sentence-transformers model."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from gcpo.semantics.embedder import TextEmbedder
from gcpo.semantics.hashed import HashedNgrams


class SentenceEncoder(TextEmbedder):
    """A sentence-transformers model as the source of geometry.

    What a text says beyond the model's longest input (256 tokens for all-MiniLM-L6-v2) is not seen.

    Args:
        model: Path or hub id, or a loaded ``SentenceTransformer``.
        cache_size: How many texts are remembered between calls.

    Raises:
        ImportError: sentence-transformers is not installed.
        ValueError: The model cannot be loaded.
    """

    def __init__(self, model: Any, cache_size: int = 20_000) -> None:
        super().__init__(cache_size)
        if isinstance(model, str):
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise ImportError(
                    f"embedding with {model!r} needs sentence-transformers, which is not installed: "
                    'install it with pip install "gcpo[embed]".'
                ) from error
            try:
                model = SentenceTransformer(model)
            except OSError as error:
                raise ValueError(
                    f"embedder {model!r} cannot be loaded: give the path or hub id of a sentence-transformers model."
                ) from error
        self.model = model

    def encode(self, texts: list[str]) -> Float[Tensor, "N D"]:
        """The model's vectors."""
        vectors: Tensor = self.model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        return vectors


def text_embedder(name: str) -> TextEmbedder:
    """``"hashed"`` for hashed n-grams, which need no model; any other is a sentence-transformers path or hub id."""
    return HashedNgrams() if name == "hashed" else SentenceEncoder(name)
