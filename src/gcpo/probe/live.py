"""The gradient's noise while a run trains, from the training's own backward pass.

A response's share g_i of a step's gradient, scaled so that the gradient is the mean of the g_i: its advantage times
its score, as far as the loss has it so (ratios, clipping and the normaliser are in). It is caught, sketched
(``sketch``), where the backward pass comes by anyway: at the output layer of the attention of a few blocks, which
stands for the rest (docs/results/probe.md says how well). Over the live groups of a batch:

    variance            mean over groups of tr Cov(g): the noise of one response's gradient
    snr                 sum of |E g|^2 over sum of tr Cov(g) / n
    rank_correlation    Spearman's of the recipe's signal with tr Cov(g), over the groups seen lately

What is not finite is left out: a step that overflows in fp16 says nothing.

The signal is taken on the same responses, so the correlation is the one that ``gcpo probe`` calls *same, live*; but
the recipe's weights are in the gradient. Advantages by the group's mean tie its responses, which ``variance`` does not
undo: with G = 2 the snr is far too high, with 8 by a few percent.
"""

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gcpo.probe.layers import Rules, rules_of
from gcpo.probe.sketch import Features
from gcpo.probe.variance import mean_square, weighted_variance

_BLOCKS = 4
_NUMBERS = 256  # that stand for a layer's gradient


class GradientTap:
    """Catches what each response of a micro-batch adds to the gradient of some layers.

    Args:
        model: The policy, without wrappers. Its layers keep their inputs until the backward pass, which those of
            trained weights do anyway.
        device: Where it will compute; None for where its weights are now.

    Raises:
        ValueError: No linear layer of it is trained, or its weights are not on this process.
    """

    def __init__(self, model: nn.Module, device: torch.device | None = None) -> None:
        self._rules = _tapped(model)
        shapes = {name: model.get_parameter(name).shape for rules in self._rules.values() for name, _ in rules}
        if any(shape.numel() == 0 for shape in shapes.values()):
            raise ValueError("weights are split over processes (DeepSpeed ZeRO-3): the gradient cannot be watched.")
        like = torch.empty(0, device=device or next(model.parameters()).device)
        self._features = Features(like, 0, shapes, _NUMBERS * len(shapes), seed=0)
        self._seconds = 0.0

    @property
    def size(self) -> int:
        """F, how many numbers stand for a response's gradient."""
        return self._features.total.shape[1]

    def table(self, rows: int) -> Float[Tensor, "N F"]:
        """Zeros for the shares of so many responses."""
        return self._features.total.new_zeros(rows, self.size)

    def spent(self) -> float:
        """Seconds that catching took since this was last asked, as the host's clock sees it."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, forward and backward passes of a micro-batch are watched; ``begin`` says of how many rows."""
        handles = [module.register_forward_hook(self._after) for module in self._rules]
        self._features.clear(0)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, rows: int) -> None:
        """The next forward pass is of so many responses."""
        self._features.clear(rows)

    @property
    def caught(self) -> Float[Tensor, "n F"]:
        """Sketched gradients of the rows of the last micro-batch."""
        return self._features.total

    def _after(self, module: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
        if not y.requires_grad or len(y) != len(self._features.total):
            return
        x = args[0].detach()

        @torch.no_grad()
        def back(g: Tensor) -> None:
            started = time.perf_counter()
            for name, rule in self._rules[module]:
                self._features.add(name, slice(0, len(x)), rule(x, g))
            self._seconds += time.perf_counter() - started

        y.register_hook(back)


def _tapped(model: nn.Module) -> Rules:
    """The last trained linear layer of the first part of a few blocks, spread over the depth."""
    last: dict[str, tuple[str, str]] = {}
    for path, module in model.named_modules():
        linear = type(module).forward is nn.Linear.forward or type(module).__name__ == "Conv1D"
        block = re.match(r"((?:.*?\.)?\d+)\.(\w+)", path)
        if linear and block and "experts" not in path and module.weight.requires_grad:
            part, _ = last.setdefault(block[1], (block[2], path))
            if part == block[2]:
                last[block[1]] = part, path
    if not last:
        raise ValueError("no linear layer in the blocks of the model is trained: its gradient cannot be watched.")
    paths = [path for _, path in last.values()]
    depths = torch.linspace(0, len(paths) - 1, min(_BLOCKS, len(paths))).round().long().tolist()
    weights = {id(model.get_submodule(paths[i]).weight): f"{paths[i]}.weight" for i in depths}
    return rules_of(model, weights)[0]


class GradientWatch:
    """Keeps the last groups for the running correlation.

    Args:
        memory: How many groups.
    """

    def __init__(self, memory: int = 512) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=memory)

    @property
    def seen(self) -> list[tuple[float, float]]:
        """Signal and variance of the last groups, for a checkpoint."""
        return list(self._seen)

    @seen.setter
    def seen(self, pairs: Iterable[Sequence[float]]) -> None:
        self._seen.clear()
        self._seen.extend((x, y) for x, y in pairs)

    def __call__(
        self,
        gradients: Float[Tensor, "B G F"],
        live: Bool[Tensor, " B"],
        counted: Bool[Tensor, "B G"],
        signal: Float[Tensor, " B"] | None,
    ) -> tuple[dict[str, float], Float[Tensor, " B"]]:
        """Metrics of a batch, none if no group is live; and the variance of each group, 0 for a dead one, on the CPU.

        Args:
            gradients: Shares of the responses, or sketches of them.
            live: Groups whose rewards differ.
            counted: Responses that count.
            signal: The recipe's signal, if it has one.
        """
        g, live, counted = gradients.cpu().double(), live.cpu(), counted.cpu()  # Apple's GPUs have no float64
        counted = counted & g.isfinite().all(-1)
        gram, ones = g @ g.mT, torch.ones_like(g[..., 0])
        variance = torch.where(live, weighted_variance(gram, ones, counted), 0)
        known = live & (counted.sum(-1) > 1)
        if not known.any():
            return {}, variance
        noise = (variance / counted.sum(-1).clamp(min=1))[known].sum()
        square = mean_square(gram, ones, counted)[known].sum()
        metrics = {
            "variance": variance[known].mean().item(),
            "snr": (square / noise).item() if noise > 0 else 0.0,
        }
        if signal is not None:
            signal = signal.cpu()
            known &= signal.isfinite()
            self._seen.extend(zip(signal[known].tolist(), variance[known].tolist(), strict=True))
            metrics |= self._correlation()
        return metrics, variance

    def _correlation(self) -> dict[str, float]:
        from scipy.stats import spearmanr

        x, y = ([pair[i] for pair in self._seen] for i in range(2))
        if len(set(x)) < 2 or len(set(y)) < 2:
            return {}
        return {"rank_correlation": float(spearmanr(x, y).statistic)}
