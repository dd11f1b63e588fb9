"""What a policy's generation leaves behind: the states and logits from which each token was drawn.

Source: this project. ``transformers``' ``generate`` computes, for every token it draws, the state and the logits that
predict it. ``Measure`` needs no more than that for scores and log-probabilities, and for embeddings only the state of
the very last token beside, which one more step of the same generation gives, of the longest responses only. So they
are kept as they come by, which saves the forward pass over the whole responses.

Logits are not kept: of the distribution p_t only its sketch R p_t, and log p_t(y_t) once the token y_t is seen to be
fed. N responses, P tokens of the prompt, D features, V tokens of the vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gcpo import groups
from gcpo.semantics.scores import Projection


class Tapped(NamedTuple):
    """Of T tokens: the state each was drawn from, its log-probability and the sketch of the distribution.

    ``last`` is the state of the T-th token itself, where there is one; None if it could not be had.
    """

    states: Float[Tensor, "N T D"]
    last: Float[Tensor, "N 1 D"] | None
    log_p: Float[Tensor, "N T"] | None
    sketch: Float[Tensor, "N T k"] | None

    def of(self, rows: slice | Bool[Tensor, " N"]) -> "Tapped":
        """That of some responses."""
        return Tapped._make(None if x is None else x[rows] for x in self)

    def until(self, T: int) -> "Tapped":
        """That of responses that have no more than T tokens."""
        states, _, log_p, sketch = self
        if states.size(1) == T:
            return self
        # The state that a further token would be drawn from is that of the T-th itself.
        first = (None if x is None else x[:, :T] for x in (log_p, sketch))
        return Tapped(states[:, :T], states[:, T : T + 1], *first)


class GenerationTap:
    """Listens to a model while it generates.

    Args:
        model: The causal language model that is called at each token, without wrappers.
        backbone: The part below its head, from ``backbone_of``.
        projection: Of scores, for V, D and a device; None if neither scores nor log-probabilities are wanted.
        temperature: tau, which divides the logits.
        last: Whether the states of last tokens are wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: nn.Module,
        projection: Callable[[int, int, torch.device], Projection] | None = None,
        temperature: float = 1.0,
        last: bool = True,
    ) -> None:
        self._model: Any = model
        self._backbone = backbone
        self._projection, self._temperature, self._wants_last = projection, temperature, last
        self._forget()

    def _forget(self) -> None:
        self._state: Tensor | None = None
        self._states: list[Tensor] = []
        self._fed: list[Tensor] = []
        self._log_p: list[Tensor] = []
        self._sketch: list[Tensor] = []
        self._open: Tensor | None = None  # log p of the token that is yet to be seen
        self._call: dict[str, Any] = {}  # what the last step was called with
        self._last: tuple[Tensor, Tensor] | None = None  # which rows were fed their last token, and its states

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, what the last call of ``generate`` computes is kept."""
        self._forget()
        handles = [
            self._backbone.register_forward_hook(self._after_backbone),
            self._model.register_forward_hook(self._after_model, with_kwargs=True),
        ]
        generate, own = self._model.generate, vars(self._model).get("generate")

        def one_step_more(*args: Any, **kwargs: Any) -> Any:
            output = generate(*args, **kwargs)
            config = kwargs.get("generation_config") or self._model.generation_config
            pad = kwargs.get("pad_token_id", config.pad_token_id)
            self._step(getattr(output, "sequences", output), pad)
            return output

        self._model.generate = one_step_more
        try:
            yield
        finally:
            del self._model.generate
            if own is not None:  # of a model that somebody had patched before
                self._model.generate = own
            self._call = {}  # and with it the cache
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _step(self, said: Tensor, pad: int | None) -> None:
        """Feed the last tokens too, while the cache is there; where that is not plain, leave it."""
        call, self._call = self._call, {}
        if not self._wants_last or not _takes_more(call) or len(said) != len(self._states[0]):
            return
        # Responses that ended before are filled up; where one only looks so, take() sees that it is missing.
        open_ = ~(said[:, -2:] == (-1 if pad is None else pad)).all(1)
        if not open_.any():
            return
        cache: Any = call["past_key_values"]
        mask, places = call.get("attention_mask"), call.get("position_ids")
        if not open_.all() and _takes_fewer(cache):
            cache.batch_select_indices(open_.nonzero().squeeze(1))
        else:
            open_ = torch.ones_like(open_)
        call = {"past_key_values": cache, "use_cache": True, "input_ids": said[open_, -1:]}
        if mask is not None:
            call["attention_mask"] = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)[open_]
        if places is not None:  # of some models one for time, height and width each, before the rows
            call["position_ids"] = (places[..., -1:] + 1).expand(*places.shape[:-2], len(said), 1)[..., open_, :]
        device, dtype, enabled = self._autocast
        with torch.autocast(device, dtype, enabled):
            self._last = open_, self._backbone(**call)[0].to(self._states[0].device)

    def take(self, ids: Int[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Tapped | None:
        """What was kept of these responses, and forget it; None if something else was generated last.

        Args:
            ids: The tokens that were drawn.
            mask: Which exist, from the left.
        """
        T, steps = int(mask.sum(1).amax()), len(self._states)
        fed = torch.cat(self._fed, dim=1)[:, : T - 1] if self._fed else ids[:, :0]
        same = steps >= T > 0 and len(self._states[0]) == len(ids) and fed.shape[1] == T - 1
        if not same or ((fed != ids[:, : T - 1]) & mask[:, : T - 1]).any():
            self._forget()
            return None
        self._see(ids[:, T - 1 : T], T)
        scored = self._projection is not None
        tapped = Tapped(
            torch.cat(self._states[:T], dim=1),
            self._states[T] if steps > T else self._last_of(mask[:, T - 1]),
            torch.cat(self._log_p[:T], dim=1) if scored else None,
            torch.stack(self._sketch[:T], dim=1) if scored else None,
        )
        self._forget()
        return tapped

    def _last_of(self, wanted: Bool[Tensor, " N"]) -> Float[Tensor, "N 1 D"] | None:
        """States of last tokens, if all the wanted ones are there."""
        if self._last is None or (wanted & ~self._last[0]).any():
            return None
        fed, states = self._last
        return states.new_zeros(len(fed), *states.shape[1:]).index_put_((fed.nonzero().squeeze(1),), states)

    def _after_backbone(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._state = output[0]
        device = self._state.device.type
        self._autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

    @torch.no_grad()
    def _after_model(self, _module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        fed = args[0] if args else kwargs.get("input_ids")
        if self._state is None or fed is None or not kwargs.get("use_cache"):
            return
        if fed.shape[1] > 1 or (self._states and len(fed) != len(self._states[0])):
            self._forget_but_state()
        elif self._states:
            self._fed.append(fed)
            self._see(fed, len(self._states))
        assert self._state is not None
        self._call = dict(kwargs)
        # A copy, or the states of the whole prompt would be kept with the last one; and where the logits are, as the
        # backbone of a model that is split over devices (device_map) may end on another.
        self._states.append(self._state[:, -1:].to(output.logits.device, copy=True))
        if self._projection is not None:
            log_p = torch.log_softmax(groups.promote(output.logits[:, -1]) / self._temperature, -1)
            R, _ = self._projection(log_p.shape[-1], self._state.shape[-1], log_p.device)
            self._sketch.append(R.apply(log_p.exp()))
            self._open = log_p

    def _forget_but_state(self) -> None:
        state = self._state
        self._forget()
        self._state = state

    def _see(self, tokens: Int[Tensor, "N 1"], step: int) -> None:
        """The token drawn from the last distribution, if it was not seen yet."""
        if self._open is not None and len(self._log_p) == step - 1:
            self._log_p.append(self._open.gather(-1, tokens))
            self._open = None


def _takes_more(call: dict[str, Any]) -> bool:
    """Whether one token more can be fed after this call of a model as before: no fixed cache, no masks of its own."""
    cache, mask = call.get("past_key_values"), call.get("attention_mask")
    plain = mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)
    return cache is not None and plain and not getattr(cache, "is_compileable", False)


def _takes_fewer(cache: Any) -> bool:
    """Whether rows of a cache can be chosen; not where its layers keep more than keys and values as they are.

    By name, since layers that keep states or quantized keys besides inherit a way that leaves those as they were.
    """
    plain = {"DynamicLayer", "DynamicSlidingWindowLayer"}
    return plain.issuperset(type(layer).__name__ for layer in getattr(cache, "layers", [cache]))
