"""The policy's own hidden states as the source of geometry.

Works on any transformers causal language model, wrapped (DDP, PEFT) or not; imports none of them.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def forward(
    model: Any,
    backbone: torch.nn.Module,
    input_ids: Int[Tensor, "N L"],
    attention_mask: Int[Tensor, "N L"],
    logits_to_keep: int = 1,
) -> tuple[Float[Tensor, "N L D"], Float[Tensor, "N K V"]]:
    """States after the last layer of ``backbone`` and the last logits, from a forward pass of the ``model`` around it.

    The whole model is called, not the backbone: wrappers that gather sharded weights hook its forward. Dropout is off,
    so the pass draws no random number, and the mode the model was in comes back.
    """
    seen: list[Tensor] = []
    handle = backbone.register_forward_hook(lambda _module, _args, output: seen.append(output[0]))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            kept = {"logits_to_keep": logits_to_keep, "use_cache": False}
            output = model(input_ids=input_ids, attention_mask=attention_mask, **kept)
    finally:
        handle.remove()
        model.train(training)
    if not seen:
        raise RuntimeError(
            f"{type(backbone).__name__} was not called by its model, so it gave no hidden states: "
            "set gcpo_embedder to a sentence-transformers model."
        )
    return seen[-1], output.logits[:, -logits_to_keep:]


def backbone_of(model: Any) -> torch.nn.Module:
    """The part of an unwrapped causal language model below its head."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Some models (OPT) call the decoder inside their base model, not the base model itself.
    decoder: torch.nn.Module | None = inner.get_decoder() if hasattr(inner, "get_decoder") else None
    backbone: torch.nn.Module = inner.base_model
    return decoder if decoder is not None and decoder is not inner else backbone


class LineEnds:
    """Which tokens of a vocabulary contain a line break, learned as they come up.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bool] = {}

    def __call__(self, ids: Int[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
        """Where a token ends a line."""
        distinct, place = ids.unique(return_inverse=True)
        for token in distinct.tolist():
            if token not in self._known:
                self._known[token] = "\n" in self._tokenizer.decode([token])
        ends = torch.tensor([self._known[token] for token in distinct.tolist()], device=ids.device)
        return ends[place]
