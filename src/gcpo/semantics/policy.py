"""What signals need to know of responses, from a forward pass of the policy itself.

Works on any transformers causal language model, wrapped (DDP, PEFT) or not; imports none of them.
N responses, Q tokens of the prompt (padded on the left), T of the response (padded on the right).
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gcpo.semantics.pooling import pool, pool_steps, step_index
from gcpo.semantics.scores import (
    Projection,
    draw_projection,
    score_features,
    score_features_of_sketch,
    score_features_of_states,
)
from gcpo.semantics.step_ends import StepEnds
from gcpo.semantics.tap import Tapped

MEASURED = frozenset({"embeddings", "points", "scores", "log_probs", "lengths"})
"""Inputs of signals that ``Measure`` gives; ``point_mask`` comes with ``points``."""

_EMPTY = {
    "embeddings": torch.zeros(1),
    "points": torch.zeros(1, 1),
    "point_mask": torch.zeros(1, dtype=torch.bool),
    "scores": torch.zeros(1),
    "log_probs": torch.zeros(()),
    "lengths": torch.zeros((), dtype=torch.long),
}


class Measure:
    """Embeddings, points, scores, log-probabilities and lengths of responses: those that are wanted.

    Args:
        tokenizer: The policy's tokenizer.
        wanted: Names in ``MEASURED``.
        max_points: Most steps a response is split into.
        temperature: At which the policy is sampled.
        batch_size: Responses a forward pass.
        steps: What a step of a response is, one of ``STEPS``.

    Attributes:
        placed: Whether passes of its own tell the model the places of tokens; a host's pass does not. None: not said.
    """

    placed: bool | None = None

    def __init__(
        self,
        tokenizer: Any,
        wanted: Collection[str],
        max_points: int = 8,
        temperature: float = 1.0,
        batch_size: int = 32,
        steps: str = "auto",
    ) -> None:
        self._wanted = set(wanted) & MEASURED
        self._max_points, self._temperature, self._batch_size = max_points, temperature, batch_size
        self._step_ends = StepEnds(tokenizer, steps)
        self._projection: Projection | None = None

    def __call__(
        self,
        model: Any,
        backbone: torch.nn.Module,
        prompt_ids: Int[Tensor, "N Q"],
        prompt_mask: Int[Tensor, "N Q"],
        ids: Int[Tensor, "N T"],
        mask: Bool[Tensor, "N T"],
        spoken: Bool[Tensor, "N T"] | None = None,
    ) -> dict[str, Tensor]:
        """What is wanted, (N, ...) each.

        Args:
            model: The policy, in its wrappers.
            backbone: From ``backbone_of`` the unwrapped policy.
            prompt_ids: Tokens of the prompts.
            prompt_mask: Which exist.
            ids: Tokens of the responses.
            mask: Which exist.
            spoken: Which the policy said itself, not a tool it called; None for all.
        """
        spoken = mask if spoken is None else spoken
        measured = self._lengths(spoken)
        if self._wanted == measured.keys():
            return measured
        input_ids = torch.cat([prompt_ids, ids], dim=1)
        attention_mask = torch.cat([prompt_mask, mask.to(prompt_mask)], dim=1)
        steps = self._steps(ids, mask)
        kept = ids.size(1) + 1 if self.wants_scores else 1

        def of(rows: slice) -> dict[str, Tensor]:
            states, logits = forward(model, backbone, input_ids[rows], attention_mask[rows], kept, bool(self.placed))
            return self._of(states, logits, ids[rows], spoken[rows], steps[rows])

        return measured | self._in_parts(len(ids), of)

    def of_generation(
        self,
        tapped: Tapped,
        model: Any,
        backbone: torch.nn.Module,
        prompt_ids: Int[Tensor, "N Q"],
        prompt_mask: Int[Tensor, "N Q"],
        ids: Int[Tensor, "N T"],
        mask: Bool[Tensor, "N T"],
        spoken: Bool[Tensor, "N T"] | None = None,
    ) -> dict[str, Tensor]:
        """The same from what a generation left behind.

        Where that lacks the state of the last token, responses as long as the longest pass the model again.
        """
        T = int(mask.sum(1).amax())
        tapped, ids, mask = tapped.until(T), ids[:, :T], mask[:, :T]
        spoken = mask if spoken is None else spoken[:, :T]
        steps = self._steps(ids, mask)
        if tapped.last is None and self._wanted & {"embeddings", "points"}:
            last = torch.zeros_like(tapped.states[:, :1])
            input_ids = torch.cat([prompt_ids, ids], dim=1)
            attention_mask = torch.cat([prompt_mask, mask.to(prompt_mask)], dim=1)
            for rows in mask[:, -1].nonzero().flatten().split(self._batch_size):
                states, _ = forward(model, backbone, input_ids[rows], attention_mask[rows])
                last[rows] = states[:, -1:].to(last)
            tapped = tapped._replace(last=last)

        def of(rows: slice) -> dict[str, Tensor]:
            return self._of_tapped(tapped.of(rows), ids[rows], spoken[rows], steps[rows])

        return self._lengths(spoken) | self._in_parts(len(ids), of)

    def of_pass(
        self,
        states: Float[Tensor, "N T1 D"],
        head: Any,
        ids: Int[Tensor, "N T"],
        mask: Bool[Tensor, "N T"],
        spoken: Bool[Tensor, "N T"] | None = None,
    ) -> dict[str, Tensor]:
        """The same from the states of a pass that another made, from the token before the responses on (T + 1).

        Logits, where needed, are made anew from the states by the ``head``'s weight and bias.
        """
        spoken = mask if spoken is None else spoken
        steps = self._steps(ids, mask)

        def of(rows: slice) -> dict[str, Tensor]:
            measured = self._pooled(states[rows, 1:], spoken[rows], steps[rows])
            if self.wants_scores:
                projection = self.projection(head.weight.shape[0], states.size(-1), states.device)
                made = (states[rows, :-1], head.weight, ids[rows], spoken[rows], projection, self._temperature)
                measured |= self._asked(*score_features_of_states(*made, getattr(head, "bias", None)))
            return measured

        return self._lengths(spoken) | self._in_parts(len(ids), of)

    def of_some(
        self, rows: Int[Tensor, " n"], model: Any, backbone: torch.nn.Module, *responses: Tensor
    ) -> dict[str, Tensor]:
        """What a call gives of N responses, zeros for all but some ``rows``; where there are none, nothing is passed.

        Nothing says then how long vectors would be, and they have one entry.

        Args:
            rows: Those that are passed.
            model: The policy, in its wrappers.
            backbone: From ``backbone_of`` the unwrapped policy.
            *responses: As in a call, from ``prompt_ids`` on.
        """
        N = len(responses[0])
        if not len(rows):
            empty = {
                name: value for name, value in _EMPTY.items() if name.replace("point_mask", "points") in self._wanted
            }
            return {name: value.expand(N, *value.shape).to(responses[0].device) for name, value in empty.items()}
        found = self(model, backbone, *(x[rows] for x in responses))
        return {
            name: value.new_zeros(N, *value.shape[1:]).index_copy_(0, rows, value) for name, value in found.items()
        }

    @property
    def wants_scores(self) -> bool:
        """Whether logits are needed, not states alone."""
        return bool(self._wanted & {"scores", "log_probs"})

    def projection(self, vocabulary: int, dim: int, device: torch.device) -> Projection:
        """Of scores: drawn for the first sizes that come up."""
        if self._projection is None:
            self._projection = draw_projection(vocabulary, dim, device=device)
        return self._projection

    def _lengths(self, spoken: Tensor) -> dict[str, Tensor]:
        return {"lengths": spoken.sum(1)} if "lengths" in self._wanted else {}

    def _steps(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Step each token belongs to; only points ask for it."""
        if "points" not in self._wanted:
            return torch.zeros_like(ids)
        return step_index(self._step_ends(ids, mask), mask, self._max_points)

    def _pooled(self, states: Tensor, spoken: Tensor, steps: Tensor) -> dict[str, Tensor]:
        """Of the states of the responses' own tokens."""
        measured = {}
        if "embeddings" in self._wanted:
            measured["embeddings"] = pool(states, spoken)
        if "points" in self._wanted:
            points, point_mask = pool_steps(states, steps, spoken, self._max_points)
            measured |= {"points": points, "point_mask": point_mask}
        return measured

    def of_response(
        self,
        states: Float[Tensor, "T1 D"],
        logits: Float[Tensor, "T1 V"] | None,
        ids: Int[Tensor, " T"],
        spoken: Bool[Tensor, " T"],
    ) -> dict[str, Tensor]:
        """What is wanted of one response, from a forward pass that another has made.

        Args:
            states: States after the last layer, from the token before the response on, so T + 1.
            logits: Theirs; needed for scores and log-probabilities only.
            ids: Tokens of the response.
            spoken: Which the policy said itself.

        Returns:
            embeddings (1, D), points (S, D) of the steps there are, scores (1, F), log_probs (1,), lengths (1,).
        """
        measured = {"lengths": spoken.sum().view(1)} if "lengths" in self._wanted else {}
        row, whole = ids.unsqueeze(0), torch.ones_like(spoken).unsqueeze(0)
        steps = self._steps(row, whole)
        measured |= self._of(
            states.unsqueeze(0),
            states.new_zeros(1, 0) if logits is None else logits.unsqueeze(0),
            row,
            spoken.unsqueeze(0),
            steps,
        )
        if "points" in measured:
            measured["points"] = measured["points"][measured.pop("point_mask")]
        return measured

    def _in_parts(self, N: int, of: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What is measured of N responses, some at a time: states in fp32 take twice the room they are kept in."""
        size = self._batch_size
        parts = [of(slice(i, i + size)) for i in range(0, N, size)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _asked(self, scores: Tensor, log_probs: Tensor) -> dict[str, Tensor]:
        """Those of the two that are wanted."""
        found = {"scores": scores, "log_probs": log_probs}
        return {name: value for name, value in found.items() if name in self._wanted}

    def _of_tapped(self, tapped: Tapped, ids: Tensor, spoken: Tensor, steps: Tensor) -> dict[str, Tensor]:
        """Of what a generation left behind of some responses."""
        states, last, log_p, sketch = tapped
        measured: dict[str, Tensor] = {}
        if last is not None:  # a token's own state is the one that the next token was drawn from
            measured |= self._pooled(torch.cat([states[:, 1:], last], dim=1), spoken, steps)
        if log_p is not None and sketch is not None:
            projection = self.projection(0, 0, ids.device)
            scores = score_features_of_sketch(sketch, states, ids, spoken, projection, self._temperature)
            measured |= self._asked(scores, log_p.masked_fill(~spoken, 0).sum(1))
        return measured

    def _of(self, states: Tensor, logits: Tensor, ids: Tensor, spoken: Tensor, steps: Tensor) -> dict[str, Tensor]:
        """Of one forward pass; counted from the right, since prompt tuning puts virtual tokens before the prompt."""
        T = ids.size(1)
        measured = self._pooled(states[:, -T:], spoken, steps)
        if self.wants_scores:
            # A token's logits, and the state they are made of, stand one position before it.
            logits, states = logits[:, :-1], states[:, -T - 1 : -1]
            projection = self.projection(logits.size(-1), states.size(-1), logits.device)
            measured |= self._asked(*score_features(logits, states, ids, spoken, projection, self._temperature))
        return measured


def forward(
    model: Any,
    backbone: torch.nn.Module,
    input_ids: Int[Tensor, "N L"],
    attention_mask: Int[Tensor, "N L"],
    logits_to_keep: int = 1,
    placed: bool = False,
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
            places = {"position_ids": places_of(attention_mask)} if placed else {}
            output = model(input_ids=input_ids, attention_mask=attention_mask, **kept, **places)
    finally:
        handle.remove()
        model.train(training)
    if not seen:
        raise RuntimeError(
            f"{type(backbone).__name__} was not called by its model, so it gave no hidden states: "
            "set gcpo_embedder to a sentence-transformers model."
        )
    # A model split over devices (device_map) may have its backbone end on another than its logits.
    return seen[-1].to(output.logits.device), output.logits[:, -logits_to_keep:]


def causal_of(model: Any) -> torch.nn.Module:
    """The causal language model inside adapters."""
    inner: torch.nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


def backbone_of(model: Any) -> torch.nn.Module:
    """The part of an unwrapped causal language model below its head."""
    inner: Any = causal_of(model)
    # Some models (OPT) call the decoder inside their base model, not the base model itself; some (Llama 4) name
    # themselves for both.
    named = (inner.get_decoder() if hasattr(inner, "get_decoder") else None, inner.base_model)
    found = [part for part in (*named, getattr(inner, "model", None)) if part is not None and part is not inner]
    if not found:
        raise ValueError(
            f"{type(inner).__name__} does not say which part of it is below its head, where hidden states come from: "
            "choose a recipe and signals that need none of the policy."
        )
    backbone: torch.nn.Module = found[0]
    return backbone


def head_of(model: Any) -> Any:
    """The output layer of an unwrapped causal language model; None if it has none."""
    inner: Any = causal_of(model)
    return inner.get_output_embeddings()


def places_of(attention_mask: Int[Tensor, "N L"] | Bool[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """Places of tokens as ``generate`` counts them: from the first that exists on."""
    places: Tensor = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    return places


def counts_padding(model: Any) -> bool:
    """Whether a model has to be told the places of tokens, or padding on the left would count."""
    takes = "position_ids" in inspect.signature(causal_of(model).forward).parameters
    return takes and not ignores_padding(model)


def ignores_padding(model: Any, call: Callable[..., Any] | None = None) -> bool:
    """Whether a causal language model gives the same logits however far a row is padded on the left.

    Found by calling it; those with learned positions do not, since a host's loss passes no positions of its own.

    Args:
        model: The model.
        call: What to call in its place, such as its forward as it was before it was wrapped.
    """
    call = call or model
    device = next(model.parameters()).device
    row, pad = torch.tensor([[1, 2, 3, 2]], device=device), torch.zeros(1, 5, dtype=torch.long, device=device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            short = call(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits
            mask = torch.cat([pad, torch.ones_like(row)], dim=1)
            long = call(input_ids=torch.cat([pad, row], dim=1), attention_mask=mask, use_cache=False).logits
    finally:
        model.train(training)
    difference = (long[:, -1] - short[:, -1]).abs().amax()
    eps = max(torch.finfo(short.dtype).eps, torch.finfo(torch.float32).eps)  # norms are in single precision
    return bool(difference < eps**0.5 * short[:, -1].abs().amax())


def has_plain_head(model: Any) -> bool:
    """Whether logits are the output layer of the last states and nothing more; some cap or scale them.

    Found by calling it: the layer must take the states as they are, and the model give what the layer gives.
    """
    head, device = head_of(model), next(model.parameters()).device
    if not isinstance(head, torch.nn.Linear):  # none, or one with an adapter
        return False
    seen: list[tuple[Tensor, Tensor]] = []
    handle = head.register_forward_hook(lambda _module, args, output: seen.append((args[0], output)))
    row = torch.tensor([[1, 2, 3, 2]], device=device)
    try:
        states, logits = forward(model, backbone_of(model), row, torch.ones_like(row), row.size(1))
    finally:
        handle.remove()
    return any(torch.equal(x.to(states), states) and torch.equal(y.to(logits), logits) for x, y in seen)
