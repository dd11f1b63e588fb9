"""Exact policy gradients of single responses from one forward and one backward pass, without keeping them.

Source: this project; products of per-example gradients from a layer's inputs and output gradients are Goodfellow's
(arXiv 1510.01799), without their making "ghost" products (arXiv 2009.03106). The score of response i, of tokens y_t
predicted by logits z_t one position before them:

    s_i = d/dtheta sum_{t in mask} log softmax(z_t / tau)(y_t),    K_ij = s_i . s_j within a group

``grams``     K exactly, (B, G, G): each layer's share is made and added up while the backward pass stands at it
``features``  s_i itself, (N, P), or a sketch of it (``sketch``); with ``dim``, ``grams`` comes from the sketch

No weight gradient is accumulated and ``.grad`` is not touched: parameters are frozen, and the first chosen layer's
output asks for a gradient. The head runs on the positions that count only, some groups at a time, by calling the model
on one token whose last state is replaced; so whatever the model does to its logits (soft caps, scales) is in.

Responses must share nothing in the model but its parameters (no batch statistics, no capacity of experts). Refused:
layers without a rule (``layers``), parameters shared by more than an embedding and the head, layers called twice, or
not on one row a response. What is not seen: a weight that a model uses beside the call of its layer.

Degenerate: a response without tokens has a score of zero.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gcpo.groups import promote
from gcpo.probe.layers import Rules, rules_of
from gcpo.probe.products import GramSum
from gcpo.probe.sketch import Features, Halves
from gcpo.semantics.policy import counts_padding, places_of

_LOGITS = 2**24  # made at a time; at least those of one group


_Sum = GramSum | Features | Halves


class ResponseGradients:
    """Gradients of each response's log-probability by the parameters of a causal language model.

    Args:
        model: A transformers causal language model, with adapters or not.
        parameters: Which parameters, by their names in ``named_parameters``; None takes those that require a gradient.

    Raises:
        ValueError: None is chosen, one sits in a module of a kind that has no rule or in several, or there is no head.
    """

    def __init__(self, model: Any, parameters: Callable[[str], bool] | None = None) -> None:
        chosen = {
            name: p for name, p in model.named_parameters() if (parameters(name) if parameters else p.requires_grad)
        }
        if not chosen:
            raise ValueError("no parameter is chosen: choose some that exist, or let some require a gradient.")
        self.shapes = {name: p.shape for name, p in chosen.items()}
        self._dtype = torch.float64 if any(p.dtype == torch.float64 for p in chosen.values()) else torch.float32
        self._model, self._head = model, model.get_output_embeddings()
        self._placed: bool | None = None
        if self._head is None:
            raise ValueError(f"{type(model).__name__} names no output layer: take a causal language model.")
        self._rules, self._tied = rules_of(model, {id(p): name for name, p in chosen.items()})

    @property
    def size(self) -> int:
        """P, how many numbers the chosen parameters have."""
        return sum(map(torch.Size.numel, self.shapes.values()))

    def grams(
        self,
        input_ids: Int[Tensor, "N L"],
        attention_mask: Int[Tensor, "N L"] | Bool[Tensor, "N L"],
        mask: Bool[Tensor, "N L"],
        group_size: int,
        temperature: float = 1.0,
        dim: int | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "B G G"]:
        """Inner products of the scores within each group.

        Args:
            input_ids: Prompts with their responses, groups contiguous, padded on either side.
            attention_mask: Where a token is no padding.
            mask: Which tokens are the response's; never the first of a row, which nothing predicts.
            group_size: G.
            temperature: tau, which divides the logits.
            dim: Estimate them from a sketch of so many numbers a response; None is exact.
            seed: Of the sketch.

        Returns:
            (B, G, G) in float64; products are made in float32 (float64 if the model is) and added in float64.
        """
        if len(input_ids) % group_size:
            raise ValueError(f"responses must come in groups of {group_size}, found {len(input_ids)}.")
        if dim is not None:
            s = self.features(input_ids, attention_mask, mask, dim, seed, temperature).double()
            s = s.unflatten(0, (-1, group_size))
            estimate: Tensor = s @ s.mT
            return estimate
        total = GramSum(input_ids, group_size, self._tied)
        self._run(input_ids, attention_mask, mask, group_size, temperature, total)
        return total.total

    def features(
        self,
        input_ids: Int[Tensor, "N L"],
        attention_mask: Int[Tensor, "N L"] | Bool[Tensor, "N L"],
        mask: Bool[Tensor, "N L"],
        dim: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        halves: bool = False,
    ) -> Float[Tensor, "N F"]:
        """The scores themselves, flattened in the order of ``shapes``, or a sketch of at most ``dim`` numbers each.

        Sketches of one ``dim`` and ``seed`` can be compared across calls. With ``halves`` a sketch knows its own
        error: see ``sketch.estimates``.
        """
        like = torch.empty(0, dtype=self._dtype, device=input_ids.device)
        total: Features | Halves
        if halves:
            if dim is None:
                raise ValueError("halves are of a sketch, but dim is None: give a number.")
            total = Halves(like, len(input_ids), self.shapes, dim, seed)
        else:
            total = Features(like, len(input_ids), self.shapes, dim, seed)
        self._run(input_ids, attention_mask, mask, 1, temperature, total)
        return total.total

    def _run(self, ids: Tensor, attention: Tensor, mask: Tensor, G: int, temperature: float, total: _Sum) -> None:
        if mask[:, 0].any():
            raise ValueError("mask must leave out the first token of every row, which no logits predict.")
        if not mask.any():
            return
        head = set(self._head.modules())
        below = {module: rules for module, rules in self._rules.items() if module not in head}
        above = {module: rules for module, rules in self._rules.items() if module in head}
        with _frozen(self._model), torch.enable_grad():
            places = self._places(attention)
            with _watched(below, total, slice(0, len(ids))):
                states, vocabulary = self._states(ids, attention, places)
            gradient = torch.zeros_like(states)
            rows, columns, tokens, valid = _packed(ids, mask)
            step = max(1, _LOGITS // (G * tokens.shape[1] * vocabulary)) * G
            for start in range(0, len(ids), step):
                part = slice(start, min(start + step, len(ids)))
                at = rows[part], columns[part]
                h = states.detach()[at].requires_grad_()
                with _watched(above, total, part):
                    z = self._logits(ids, h)
                dz = _ascent(z.detach(), tokens[part], valid[part], temperature)
                (dh,) = torch.autograd.grad(z, h, dz)
                gradient.index_put_(at, dh, accumulate=True)
                del z, dz  # not two chunks at a time
            if states.requires_grad:
                states.backward(gradient)

    def _places(self, attention: Tensor) -> dict[str, Tensor]:
        """Places of tokens, for a model that has to be told: gradients are of what ``generate`` draws from."""
        if attention[:, 0].all():
            return {}
        if self._placed is None:
            self._placed = counts_padding(self._model)
        return {"position_ids": places_of(attention)} if self._placed else {}

    def _states(self, ids: Tensor, attention: Tensor, places: dict[str, Tensor]) -> tuple[Float[Tensor, "N L D"], int]:
        """What the head takes at every position, and how many logits it makes; made for one position only."""
        taken: list[Tensor] = []

        def take(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            taken.append(args[0])
            return (args[0][:1, :1].detach(), *args[1:])

        with _hooked(self._head.register_forward_pre_hook(take)):
            logits = self._model(input_ids=ids, attention_mask=attention, use_cache=False, **places).logits
        if len(taken) != 1 or taken[0].shape[:2] != ids.shape:
            found = [tuple(x.shape) for x in taken]
            raise RuntimeError(
                f"the output layer must be called once, with a state for each of the {tuple(ids.shape)} tokens, "
                f"found calls with {found}: this model cannot be probed."
            )
        return taken[0], logits.shape[-1]

    def _logits(self, ids: Tensor, states: Float[Tensor, "n T D"]) -> Float[Tensor, "n T V"]:
        """The model's own logits for given states, by replacing the state of a single token."""
        with _hooked(self._head.register_forward_pre_hook(lambda _, args: (states, *args[1:]))):
            logits: Tensor = self._model(input_ids=ids[:1, :1], use_cache=False).logits
        return logits


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient and no dropout is drawn; everything comes back as it was."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for p, _ in flags:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


@contextmanager
def _hooked(*handles: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watched(rules: Rules, total: _Sum, rows: slice) -> Iterator[None]:
    """Within, what enters a module is kept until its output's gradient comes; both then add to ``total``."""
    called: set[nn.Module] = set()
    n = rows.stop - rows.start

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Positions looked up once for all responses are looked up for each."""
        return (args[0].expand(n, -1), *args[1:]) if args and len(args[0]) == 1 < n else None

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> None:
        x: Tensor = (*args, *kwargs.values())[0]
        if module in called or len(x) != n:
            found = "called twice" if module in called else f"called on {tuple(x.shape)}"
            name = rules[module][0][0]
            raise RuntimeError(f"the layer of {name} must be called once, on {n} rows, was {found}: leave it out.")
        called.add(module)
        kept, version = [x.detach()], x._version
        if not y.requires_grad:
            y.requires_grad_()

        @torch.no_grad()
        def back(g: Tensor) -> None:
            x = kept.pop()
            if x._version != version:
                raise RuntimeError(f"the input of {rules[module][0][0]} was changed in place: leave it out.")
            for name, rule in rules[module]:
                total.add(name, rows, rule(x, g))

        y.register_hook(back)

    handles = [module.register_forward_hook(after, with_kwargs=True) for module in rules]
    handles += [m.register_forward_pre_hook(before) for m in rules if isinstance(m, nn.Embedding)]
    with _hooked(*handles):
        yield
    for module in rules.keys() - called:
        name = rules[module][0][0]
        raise RuntimeError(f"the layer of {name} was not called by the model's forward pass: leave it out.")


def _packed(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and columns of the states that predict a response, its tokens moved to the left, and which count."""
    order = (~mask).long().argsort(dim=-1, stable=True)[:, : int(mask.sum(-1).max())]
    valid = mask.gather(-1, order)
    # What fills up is a position that counts, if there is one: at padding a state may be NaN.
    order = torch.where(valid, order, order[:, :1]).clamp(min=1)
    rows = torch.arange(len(ids), device=ids.device).unsqueeze(-1).expand_as(order)
    return rows, order - 1, ids.gather(-1, order), valid


def _ascent(z: Tensor, tokens: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Gradient of the summed log-probabilities by the logits, (onehot(y) - softmax(z / tau)) / tau where it counts."""
    d = torch.softmax(promote(z) / temperature, -1).neg_()
    d.scatter_add_(-1, tokens.unsqueeze(-1), torch.ones_like(d[..., :1]))
    return d.mul_(1 / temperature).masked_fill_(~valid.unsqueeze(-1), 0).to(z.dtype)
