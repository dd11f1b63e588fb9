"""What one call of a layer adds to the gradient of each response, from its input x and the gradient g of its output.

One rule a layer kind and parameter, found when the model is looked at, so that what has none is refused by name:

    Linear, Conv1D    weight  sum_t g_t x_t^T     bias  sum_t g_t        Conv1D, GPT-2's, keeps the transpose
    Embedding         row v   c sum_{t: x_t = v} g_t                     c: Gemma's scale
    norms             weight  sum_t g_t * xhat_t  bias  sum_t g_t        xhat: y where the weight's factor is 1

Norms are any module of that name with y = xhat * w + b or xhat * (1 + w) + b, the latter Gemma's; which of them is
seen from two trial calls. x may have further dimensions between the first, which counts responses, and its last.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from gcpo import groups

_TRIAL_ERRORS = (TypeError, ValueError, IndexError, RuntimeError)
"""Of layers called as if they were of a known kind, which then they are not."""


class Outer(NamedTuple):
    """The gradient sum_t left_t right_t^T of a matrix."""

    left: Float[Tensor, "N T n"]
    right: Float[Tensor, "N T m"]


class Rows(NamedTuple):
    """The gradient of a table: right_t is added to row ids_t."""

    ids: Int[Tensor, "N T"]
    right: Float[Tensor, "N T m"]


class Vector(NamedTuple):
    """A gradient as it is, flattened."""

    value: Float[Tensor, "N n"]


Part = Outer | Rows | Vector
Rule = Callable[[Tensor, Tensor], Part]
Rules = dict[nn.Module, list[tuple[str, Rule]]]
"""Of each module, its parameters by the name that is theirs in the model."""


def rules_of(model: nn.Module, names: dict[int, str]) -> tuple[Rules, set[str]]:
    """Rules of each module that holds chosen parameters, and which of these are head and embedding at once."""
    found: Rules = {}
    owners: dict[str, list[nn.Module]] = {}
    for path, module in model.named_modules():
        for local, p in module.named_parameters(recurse=False):
            if id(p) not in names:
                continue
            made = _rule(module, local)
            if made is None:
                raise ValueError(
                    f"{path}.{local} is in a {type(module).__name__}, for which gradients per response are not known: "
                    "leave it out by `parameters`."
                )
            found.setdefault(module, []).append((names[id(p)], made))
            owners.setdefault(names[id(p)], []).append(module)
    shared = {name: modules for name, modules in owners.items() if len(modules) > 1}
    for name, modules in shared.items():
        if sorted(isinstance(module, nn.Embedding) for module in modules) != [False, True]:
            kinds = ", ".join(type(module).__name__ for module in modules)
            raise ValueError(f"{name} is shared by {kinds}; only an embedding and a head may share: leave it out.")
    return found, set(shared)


def _rule(module: nn.Module, parameter: str) -> Rule | None:
    """How the module's calls add to the gradient of one of its parameters; None for a kind that is not known."""
    kind = type(module)
    if kind.forward is nn.Linear.forward:
        return _bias(1) if parameter == "bias" else lambda x, g: Outer(_tokens(g), _tokens(x))
    if kind.__name__ == "Conv1D" and hasattr(module, "nf"):
        return _bias(1) if parameter == "bias" else lambda x, g: Outer(_tokens(x), _tokens(g))
    if isinstance(module, nn.Embedding):
        return _embedding(module)
    if "Norm" in kind.__name__ and {name for name, _ in module.named_parameters()} <= {"weight", "bias"}:
        return _norm(module, parameter)
    return None


def _tokens(x: Float[Tensor, "N *tokens n"]) -> Float[Tensor, "N T n"]:
    return groups.promote(x.reshape(x.shape[0], -1, x.shape[-1]))


def _summed(g: Float[Tensor, "N ..."], dims: int) -> Vector:
    """Sum over all but the first and the last ``dims`` dimensions."""
    return Vector(groups.promote(g).flatten(1, -1 - dims).sum(1).flatten(1))


def _bias(dims: int) -> Rule:
    return lambda _, g: _summed(g, dims)


def _embedding(module: nn.Embedding) -> Rule | None:
    if module.max_norm is not None or module.scale_grad_by_freq:
        return None
    scale: Tensor | float = 1.0
    if type(module).forward is not nn.Embedding.forward:
        ids = torch.arange(min(4, module.num_embeddings), device=module.weight.device)
        try:
            scale = functional_call(module, {"weight": torch.ones_like(module.weight)}, (ids,)).detach()[0, 0]
            if not torch.allclose(module(ids), module.weight[ids] * scale):
                return None
        except _TRIAL_ERRORS:  # takes something else than ids
            return None

    def add(ids: Tensor, g: Tensor) -> Rows:
        right = _tokens(g) * scale
        ids = ids.flatten(1)
        if module.padding_idx is not None:  # autograd leaves its row out
            right = right * (ids != module.padding_idx).unsqueeze(-1)
        return Rows(ids, right)

    return add


def _norm(module: nn.Module, parameter: str) -> Rule | None:
    weight = module.get_parameter("weight")
    if parameter == "bias":
        return _bias(weight.dim())

    def call(x: Tensor, w: Tensor | float) -> Tensor:
        state = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
        with torch.no_grad():
            y: Tensor = functional_call(module, state | {"weight": state["weight"] + w}, (x,))
        return y

    x = torch.linspace(-1, 2, 3 * weight.numel(), device=weight.device).square().to(weight).view(3, *weight.shape)
    w = torch.linspace(0.5, 1.5, weight.numel(), device=weight.device).to(weight).view(weight.shape)
    try:
        factor_one = next(c for c in (1.0, 0.0) if _close(call(x, w), call(x, c) * (w + 1 - c)))
    except (StopIteration, *_TRIAL_ERRORS):  # not of the form, or takes more than one tensor
        return None
    return lambda x, g: _summed(groups.promote(g) * call(x, factor_one), weight.dim())


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5 if a.dtype in (torch.float32, torch.float64) else 2e-2)
