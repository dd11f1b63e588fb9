"""Meanings by bidirectional entailment: two responses mean the same if each entails the other.

Source: Kuhn et al., arXiv 2302.09664; Farquhar et al., Nature 630, 625-630 (2024), whose responses carry the question.

    i ~ j  where  argmax p(. | i, j) = entailment = argmax p(. | j, i),    or both p >= threshold
    s_ij = (p(entailment | i, j) + p(entailment | j, i)) / 2

The meanings are the connected components of ~. The papers merge greedily, one response at a time, which makes the
meanings depend on the order of the responses wherever the model is not transitive.

Degenerate: equal texts mean the same and are never asked about. A text without any non-space character stands alone,
with s = 0. A probability that is not finite entails nothing.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo.semantics.clustering import connected_components
from gcpo.semantics.memory import Memory

Pair = tuple[str, str]


class Meanings(NamedTuple):
    """What the entailments of a batch say.

    Attributes:
        labels: (B, G), the place in the group of the first response of the same meaning.
        similarity: (B, G, G), symmetric, in [0, 1], 1 on the diagonal.
    """

    labels: Int[Tensor, "B G"]
    similarity: Float[Tensor, "B G G"]


class BidirectionalEntailment:
    """Any sequence-classification model with an entailment class as the judge of meanings.

    A group of n distinct responses takes n (n - 1) passes. Pairs once judged are remembered.

    Args:
        model: Path or hub id of a natural-language-inference model, or a loaded one, which is put in eval mode.
        tokenizer: The tokenizer of a loaded model.
        threshold: Least probability of entailment in both directions; None asks that it is the likeliest class.
        batch_size: Pairs a forward pass.
        cache_size: How many ordered pairs are remembered.

    Raises:
        ImportError: transformers is not installed.
        ValueError: The model has no entailment class, or a loaded model comes without tokenizer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        threshold: float | None = None,
        batch_size: int = 32,
        cache_size: int = 100_000,
    ) -> None:
        if isinstance(model, str):
            model, tokenizer = _load(model)
        if tokenizer is None:
            raise ValueError(f"a loaded model needs its tokenizer, found only a {type(model).__name__}: pass both.")
        self.model, self.tokenizer = model.eval(), tokenizer
        self._entailment = _entailment_class(model.config)
        self._limit = min(tokenizer.model_max_length, _positions(model))
        self._threshold, self._batch_size = threshold, batch_size
        self._memory: Memory[Pair, tuple[float, float]] = Memory(cache_size)
        self._warned = False

    def __call__(
        self,
        texts: Sequence[str],
        group_size: int,
        contexts: Sequence[str] | None = None,
        mask: Bool[Tensor, "B G"] | None = None,
    ) -> Meanings:
        """Meanings of the responses of each group.

        Args:
            texts: B * G responses (or answers), groups contiguous.
            group_size: G.
            contexts: What each group answers, set before its texts on both sides; B of them.
            mask: Which responses count; one that does not stands alone, and no pair with it is judged.

        Returns:
            Labels and similarities, on the CPU.

        Raises:
            ValueError: The number of texts is not a multiple of ``group_size``, or that of contexts is not B.
        """
        groups = _said(texts, group_size, contexts, mask)
        pairs = [(a, b) for group in groups for a in group for b in group]
        known = self._memory((pair for pair in pairs if _is_open(pair)), self._judge)
        verdicts = [known[pair] if _is_open(pair) else (float(pair[0] == pair[1] != ""),) * 2 for pair in pairs]
        p, entails = torch.tensor(verdicts).view(-1, group_size, group_size, 2).unbind(-1)
        similarity = ((p + p.mT) / 2).diagonal_scatter(torch.ones(len(groups), group_size), dim1=-2, dim2=-1)
        return Meanings(connected_components(entails > 0, None if mask is None else mask.cpu()), similarity)

    @torch.no_grad()
    def _judge(self, pairs: list[Pair]) -> list[tuple[float, float]]:
        """Probability of entailment, and 1 if it counts as one else 0, of each ordered pair."""
        verdicts: dict[Pair, tuple[float, float]] = {}
        ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))  # little padding
        for start in range(0, len(ordered), self._batch_size):
            batch = ordered[start : start + self._batch_size]
            inputs = self._encoded(batch).to(self.model.device)
            probabilities = self.model(**inputs).logits.float().softmax(-1)
            p = probabilities[:, self._entailment]
            least = probabilities.amax(-1) if self._threshold is None else self._threshold
            entails = p >= least  # false where p is NaN
            rows = torch.stack([p.nan_to_num(0.0), entails.float()], dim=-1).tolist()
            verdicts |= {pair: (row[0], row[1]) for pair, row in zip(batch, rows, strict=True)}
        return [verdicts[pair] for pair in pairs]

    def _encoded(self, batch: list[Pair]) -> Any:
        premises, hypotheses = ([pair[side] for pair in batch] for side in (0, 1))
        inputs = self.tokenizer(premises, hypotheses, padding=True, return_tensors="pt")
        length = inputs["input_ids"].size(1)
        if length <= self._limit:
            return inputs
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the entailment model reads {self._limit} tokens, found a pair of {length}, whose end is not seen: "
                "compare answers or summaries instead of whole responses.",
                stacklevel=2,
            )
        return self.tokenizer(
            premises, hypotheses, padding=True, truncation=True, max_length=self._limit, return_tensors="pt"
        )


def _said(
    texts: Sequence[str], group_size: int, contexts: Sequence[str] | None, mask: Tensor | None
) -> list[list[str]]:
    """What a model is shown of each response, by group; "" where a response says nothing or does not count."""
    B, rest = divmod(len(texts), group_size)
    if rest:
        raise ValueError(f"texts must come in groups of {group_size}, found {len(texts)}.")
    if contexts is not None and len(contexts) != B:
        raise ValueError(f"contexts must be one a group, found {len(contexts)} for {B} groups.")
    counted = [True] * len(texts) if mask is None else mask.flatten().tolist()
    said = [text if text.strip() and counts else "" for text, counts in zip(texts, counted, strict=True)]
    if contexts is not None:
        said = [f"{contexts[i // group_size]} {text}" if text else "" for i, text in enumerate(said)]
    return [said[b * group_size : (b + 1) * group_size] for b in range(B)]


def _is_open(pair: Pair) -> bool:
    """Whether a model must be asked: both texts say something, and not the same."""
    return bool(pair[0]) and bool(pair[1]) and pair[0] != pair[1]


def _load(name: str) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise ImportError(
            f"entailment with {name!r} needs transformers, which is not installed: "
            'install it with pip install "gcpo[trl]".'
        ) from error
    return AutoModelForSequenceClassification.from_pretrained(name), AutoTokenizer.from_pretrained(name)


def _entailment_class(config: Any) -> int:
    """The class whose label begins with "entail": "not_entailment" is another one."""
    found = [int(i) for i, label in config.id2label.items() if label.casefold().startswith("entail")]
    if len(found) != 1:
        labels = ", ".join(map(repr, config.id2label.values()))
        raise ValueError(
            f"the entailment model must have one label that begins with 'entail', found {labels}: "
            "use a natural-language-inference model, or set id2label in its configuration."
        )
    return found[0]


def _positions(model: Any) -> int:
    """Most tokens a model has positions for; RoBERTa's begin after its padding's."""
    most = getattr(model.config, "max_position_embeddings", None) or 10**9
    modules = model.named_modules() if isinstance(model, torch.nn.Module) else ()
    tables = [m for name, m in modules if name.endswith("position_embeddings")]
    padding = [m.padding_idx for m in tables if getattr(m, "padding_idx", None) is not None]
    return int(most) - (padding[0] + 1 if padding else 0)
