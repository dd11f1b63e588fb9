"""Recipes: the named methods, each a base advantage, a signal, a calibration and a modulation.

    u = signal / its largest value          in [0, 1], (B,)
    w = modulation(calibration(u, RD))      (B,), then renormalised to mean 1 over the live groups
    A = base(rewards) * w                   (B, G)

This is the only place that marries signals to advantages.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from gcpo import groups
from gcpo.advantages import BASES, CALIBRATIONS, MODULATIONS, renormalize
from gcpo.signals import SIGNALS, Signal, reward_dispersion


@dataclass(frozen=True)
class Outcome:
    """What a recipe makes of a batch of groups.

    Attributes:
        advantages: (B, G), in the dtype of the rewards; exactly 0 for a dead group and for a response left out.
        weights: (B,) group weights; 0 for dead groups.
        signals: Every signal computed, by name, (B,) each; always with ``reward_dispersion``.
        live: (B,) bool, groups whose rewards differ.
        counted: (B, G) bool, responses inside the mask with a finite reward.
    """

    advantages: Float[Tensor, "B G"]
    weights: Float[Tensor, " B"]
    signals: dict[str, Float[Tensor, " B"]]
    live: Bool[Tensor, " B"]
    counted: Bool[Tensor, "B G"]


@dataclass(frozen=True)
class Recipe:
    """A method: which base advantage, steered by which signal, and how.

    Attributes:
        name: Name it is known by.
        base: Base advantage, a name in ``gcpo.advantages.BASES``.
        signal: Uncertainty signal, a name in ``gcpo.signals.SIGNALS``; None for weight 1.
        calibration: How reward dispersion enters, a name in ``gcpo.advantages.CALIBRATIONS``.
        modulation: From uncertainty to weight, a name in ``gcpo.advantages.MODULATIONS``.
        alpha: Strength of the modulation, at least 0.
        renormalize: Scale the weights to mean 1 over the live groups of the batch.
        reward_range: Largest minus smallest reward that can be given.
        source: Paper, or what it reconstructs.

    Raises:
        ValueError: A part has a name that is not known, or a number out of range.
    """

    name: str
    base: str = "grpo"
    signal: str | None = None
    calibration: str = "none"
    modulation: str = "exponential"
    alpha: float = 1.0
    renormalize: bool = True
    reward_range: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        tables: dict[str, Mapping[str, object]] = {
            "base": BASES,
            "calibration": CALIBRATIONS,
            "modulation": MODULATIONS,
            "signal": SIGNALS,
        }
        for part, table in tables.items():
            choice = getattr(self, part)
            if choice not in table and not (part == "signal" and choice is None):
                raise ValueError(f"{part} must be one of {', '.join(table)}, found {choice!r}.")
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be at least 0 and finite, found {self.alpha}.")
        if not self.reward_range > 0:
            raise ValueError(f"reward_range must be positive, found {self.reward_range}.")

    @property
    def needs(self) -> tuple[str, ...]:
        """Inputs beyond the rewards that it cannot do without."""
        return () if self.signal is None else tuple(n for n in SIGNALS[self.signal].needs if n != "rewards")

    def describe(self) -> str:
        """The formula in one line: ``grpo * exponential(alpha=1) of u (1 - RD), u = barycentric_transport``."""
        if self.signal is None:
            return self.base
        calibrated = {"none": "u", "residual": "u (1 - RD)", "product": "u RD"}.get(self.calibration, self.calibration)
        return f"{self.base} * {self.modulation}(alpha={self.alpha:g}) of {calibrated}, u = {self.signal}"

    def __call__(
        self,
        rewards: Real[Tensor, "B G"],
        *,
        embeddings: Float[Tensor, "B G D"] | None = None,
        points: Float[Tensor, "B G S D"] | None = None,
        point_mask: Bool[Tensor, "B G S"] | None = None,
        labels: Int[Tensor, "B G"] | None = None,
        log_probs: Float[Tensor, "B G"] | None = None,
        mask: Bool[Tensor, "B G"] | None = None,
    ) -> Outcome:
        """Advantages, weights and signals of a batch of groups.

        Args:
            rewards: Rewards; a NaN or infinite one takes its response out.
            embeddings: One vector a response.
            points: Step vectors of each response.
            point_mask: Which of them exist.
            labels: Meaning of each response.
            log_probs: Log-probability of each response.
            mask: Which responses count.

        Returns:
            An ``Outcome``.

        Raises:
            ValueError: An input it needs is missing, a shape does not fit the rewards', or rewards that calibrate lie
                further apart than ``reward_range``.
        """
        if not rewards.is_floating_point():
            rewards = rewards.float()
        given = {
            "embeddings": embeddings,
            "points": points,
            "point_mask": point_mask,
            "labels": labels,
            "log_probs": log_probs,
            "mask": mask,
        }
        self._check(rewards, given)
        counted = groups.finite(rewards, mask)
        live = groups.live(rewards, mask)
        inputs = {**given, "rewards": rewards, "mask": counted}
        signals = {"reward_dispersion": reward_dispersion(rewards, counted, self.reward_range)}
        if self.signal is not None and self.signal not in signals:
            signals[self.signal] = SIGNALS[self.signal](inputs)
        self._check_range(rewards, counted)
        weights = self._weights(signals, counted, live)
        advantages = BASES[self.base](rewards, counted) * weights.unsqueeze(-1)
        return Outcome(advantages.to(rewards.dtype), weights, signals, live, counted)

    def _weights(self, signals: dict[str, Tensor], counted: Tensor, live: Tensor) -> Float[Tensor, " B"]:
        rd = signals["reward_dispersion"]
        if self.signal is None:
            return live.to(rd.dtype)
        u = normalized(SIGNALS[self.signal], signals[self.signal], counted)
        u = CALIBRATIONS[self.calibration](u, rd.clamp(max=1))  # rounding may pass 1
        weights = torch.where(live, MODULATIONS[self.modulation](u, self.alpha), 0)
        return renormalize(weights, live) if self.renormalize else weights

    def _check_range(self, rewards: Tensor, counted: Tensor) -> None:
        """A calibration by rewards beyond their range would take every group for pure signal, and do so in silence."""
        if self.signal is None or (self.calibration == "none" and self.signal != "reward_dispersion"):
            return
        low, high = groups.extremes(groups.promote(rewards), counted)
        widest = (high - low).amax().item() if len(rewards) else 0.0
        if widest > self.reward_range * 1.001:
            raise ValueError(
                f"reward_range of recipe {self.name!r} is {self.reward_range:g}, but rewards of one group lie "
                f"{widest:g} apart: set reward_range (gcpo_reward_range in GCPOConfig) to the largest minus the "
                "smallest reward a response can get."
            )

    def _check(self, rewards: Tensor, given: dict[str, Tensor | None]) -> None:
        if rewards.ndim != 2:
            raise ValueError(f"rewards must be (groups, responses), found shape {tuple(rewards.shape)}: reshape them.")
        missing = [name for name in self.needs if given[name] is None]
        if missing:
            raise ValueError(f"recipe {self.name!r} needs {' and '.join(missing)}: pass {missing[0]}=... with it.")
        for name, value in given.items():
            if value is None:
                continue
            if value.shape[:2] != rewards.shape or value.ndim != _NDIM[name]:
                raise ValueError(
                    f"{name} must have {_NDIM[name]} dimensions, the first two those of rewards "
                    f"{tuple(rewards.shape)}, found {tuple(value.shape)}."
                )
            if name.endswith("mask") and value.dtype != torch.bool:
                raise ValueError(f"{name} must be boolean, found {value.dtype}: pass {name}.bool().")


def normalized(signal: Signal, value: Float[Tensor, " B"], counted: Bool[Tensor, "B G"]) -> Float[Tensor, " B"]:
    """A signal over the largest value it takes on as many responses, in [0, 1]."""
    return (value / signal.upper(counted.sum(-1).to(value.dtype))).clamp(0, 1)


_NDIM = {"embeddings": 3, "points": 4, "point_mask": 3, "labels": 2, "log_probs": 2, "mask": 2}

_RECONSTRUCTION = "arXiv 2605.21801, reconstructed: its formulas are not public"

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        Recipe("grpo", base="grpo", source="arXiv 2402.03300"),
        Recipe("dr-grpo", base="dr-grpo", source="arXiv 2503.20783"),
        Recipe("rloo", base="rloo", source="arXiv 2402.14740"),
        # f and alpha as in a public port of the authors' code; the paper's own are not stated in public.
        Recipe(
            "seed-grpo",
            base="dr-grpo",
            signal="semantic_entropy",
            modulation="rational",
            alpha=0.0417,
            source="arXiv 2505.12346",
        ),
        # alpha is ours: hidden states share most of their direction, so u (1 - RD) rarely passes 0.1, and alpha = 1
        # would leave every weight within a few percent of 1.
        Recipe("gcpo-cd", signal="cosine_dispersion", calibration="residual", alpha=4.0, source=_RECONSTRUCTION),
        Recipe("gcpo-bot", signal="barycentric_transport", calibration="residual", alpha=4.0, source=_RECONSTRUCTION),
    )
}


def recipe(name: str, **changes: Any) -> Recipe:
    """The recipe of that name, with parts replaced: ``recipe("gcpo-bot", modulation="focal", alpha=2.0)``.

    Raises:
        ValueError: No recipe has that name, or a change names no part.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, found {name!r}.")
    parts = [f.name for f in fields(Recipe)]
    unknown = [part for part in changes if part not in parts]
    if unknown:
        raise ValueError(f"a recipe has no part {unknown[0]!r}: its parts are {', '.join(parts)}.")
    return replace(RECIPES[name], **changes)


__all__ = ["RECIPES", "Outcome", "Recipe", "normalized", "recipe"]
