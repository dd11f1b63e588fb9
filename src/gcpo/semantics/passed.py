"""What a host's own pass over whole responses leaves behind: their states, so that no pass of ours is needed.

Source: this project. Where the policy's responses come from another engine, or serve several updates, a host computes
their log-probabilities by a forward pass before it trains. The states of that pass are those that ``Measure`` would
make anew. N responses, L tokens with the prompt, T of the response, D features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class PassTap:
    """Listens to a model while its host passes whole responses through it, in chunks of rows.

    Args:
        backbone: The part below the head, from ``backbone_of``.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._seen: list[tuple[Tensor, Tensor]] = []  # tokens and states of each chunk

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, the states of passes that keep no cache, which those of a generation do, are kept."""
        self._seen = []
        handle = self._backbone.register_forward_hook(self._after, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _after(self, _module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        fed = args[0] if args else kwargs.get("input_ids")
        if fed is not None and kwargs.get("use_cache") is False:
            self._seen.append((fed, output[0].detach().to(fed.device)))  # not where device_map has the last layer

    def take(self, input_ids: Int[Tensor, "N L"], T: int) -> Float[Tensor, "N T1 D"] | None:
        """States from the token before the response on, T + 1, of the first pass; None if it was of other rows.

        A model with adapters may be passed a second time without them; the first pass is the policy's.

        Args:
            input_ids: What was passed, prompts padded on the left, responses on the right.
            T: Tokens of the responses.
        """
        seen, self._seen = self._seen, []
        chunks, left = [], input_ids
        for fed, states in seen:
            if not len(left):
                break
            if not torch.equal(fed, left[: len(fed)]):
                return None
            chunks.append(states[:, -T - 1 :])
            left = left[len(fed) :]
        return torch.cat(chunks) if chunks and not len(left) else None
