"""Recipes: the named methods, each a base advantage, a signal, a calibration and a modulation.

    u = signal within its bounds            in [0, 1], (B,)
    w = modulation(calibration(u, RD))      (B,), then renormalised to mean 1 over the live groups
    v = damping(lengths of scores)          (B, G), a power each above and below the baseline, each renormalised to
                                            mean 1 over live responses; 1 without damping
    A = base(rewards) * w * v               (B, G)

This is the only place that marries signals to advantages.
"""

import inspect
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from gcpo import groups
from gcpo.advantages import BASES, CALIBRATIONS, MODULATIONS, NORMS, damping, renormalize
from gcpo.signals import SIGNALS, Signal, primary, reward_dispersion


@dataclass(frozen=True)
class Outcome:
    """What a recipe makes of a batch of groups.

    Attributes:
        advantages: (B, G), in the dtype of the rewards; exactly 0 for a dead group and for a response left out.
        base: (B, G), the base advantages, before any weight.
        weights: (B,) group weights; 0 for dead groups.
        signals: Every signal computed, by name, (B,) each; always with ``reward_dispersion``.
        live: (B,) bool, groups whose rewards differ.
        counted: (B, G) bool, responses inside the mask with a finite reward.
    """

    advantages: Float[Tensor, "B G"]
    base: Float[Tensor, "B G"]
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
        scale: Value of a signal without an upper bound that counts as half; those with one have their own scale.
        damping: Power of the length of a response's score that its advantage is divided by, at least 0.
        damping_below: The same for negative advantages; below 0, improbable responses are blamed more. None: the same.
        norms: Where lengths of scores come from, a name in ``gcpo.advantages.NORMS``.
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
    scale: float = 1.0
    damping: float = 0.0
    damping_below: float | None = None
    norms: str = "scores"
    renormalize: bool = True
    reward_range: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        tables: dict[str, Mapping[str, object]] = {
            "base": BASES,
            "calibration": CALIBRATIONS,
            "modulation": MODULATIONS,
            "signal": SIGNALS,
            "norms": NORMS,
        }
        for part, table in tables.items():
            choice = getattr(self, part)
            if choice not in table and not (part == "signal" and choice is None):
                raise ValueError(f"{part} must be one of {', '.join(table)}, found {choice!r}.")
        for part in ("alpha", "damping"):
            if not 0 <= getattr(self, part) < math.inf:
                raise ValueError(f"{part} must be at least 0 and finite, found {getattr(self, part)}.")
        if self.damping_below is not None and not math.isfinite(self.damping_below):
            raise ValueError(f"damping_below must be finite, found {self.damping_below}.")
        for part in ("scale", "reward_range"):
            if not getattr(self, part) > 0:
                raise ValueError(f"{part} must be positive, found {getattr(self, part)}.")

    @property
    def needs(self) -> tuple[str, ...]:
        """Inputs beyond the rewards that it cannot do without."""
        return self._needs_beside({})

    def _needs_beside(self, signals: Collection[str]) -> tuple[str, ...]:
        needs = () if self.signal is None or self.signal in signals else _needed([self.signal])
        return tuple(dict.fromkeys((*needs, *self._norms_from))) if self._needs_norms else needs

    @property
    def _norms_from(self) -> tuple[str, ...]:
        return tuple(inspect.signature(NORMS[self.norms]).parameters)

    @property
    def _needs_norms(self) -> bool:
        return self.damps or self._base_needs_norms

    @property
    def damps(self) -> bool:
        """Whether responses are weighted by the lengths of their scores."""
        return self.damping != 0 or self._below != 0

    @property
    def _below(self) -> float:
        return self.damping if self.damping_below is None else self.damping_below

    @property
    def _base_needs_norms(self) -> bool:
        return "norms" in inspect.signature(BASES[self.base]).parameters

    def describe(self) -> str:
        """The formula in one line: ``grpo * exponential(alpha=1) of u (1 - RD), u = barycentric_transport``."""
        damped = f"{self.base} / |score|^{self.damping:g}" if self.damps else self.base
        if self._below != self.damping:
            damped += f" above, ^{self._below:g} below"
        if self._needs_norms and self.norms != "scores":
            damped += f" (lengths of scores by {self.norms})"
        if self.signal is None:
            return damped
        calibrated = {"none": "u", "residual": "u (1 - RD)", "product": "u RD"}.get(self.calibration, self.calibration)
        return f"{damped} * {self.modulation}(alpha={self.alpha:g}) of {calibrated}, u = {self.signal}"

    def __call__(
        self,
        rewards: Real[Tensor, "B G"],
        *,
        embeddings: Float[Tensor, "B G D"] | None = None,
        points: Float[Tensor, "B G S D"] | None = None,
        point_mask: Bool[Tensor, "B G S"] | None = None,
        similarity: Float[Tensor, "B G G"] | None = None,
        labels: Int[Tensor, "B G"] | None = None,
        texts: Sequence[Sequence[str]] | None = None,
        log_probs: Float[Tensor, "B G"] | None = None,
        lengths: Real[Tensor, "B G"] | None = None,
        scores: Float[Tensor, "B G F"] | None = None,
        mask: Bool[Tensor, "B G"] | None = None,
        also: Sequence[str] = (),
        signals: Mapping[str, Float[Tensor, " B"]] | None = None,
    ) -> Outcome:
        """Advantages, weights and signals of a batch of groups.

        Args:
            rewards: Rewards; a NaN or infinite one takes its response out.
            embeddings: One vector a response.
            points: Step vectors of each response.
            point_mask: Which of them exist.
            similarity: How far each pair of responses means the same; without it, made of the embeddings.
            labels: Meaning of each response.
            texts: The responses themselves.
            log_probs: Log-probability of each whole response.
            lengths: Number of its tokens.
            scores: Features of the gradient of each response's log-probability.
            mask: Which responses count.
            also: Further signals to compute; they steer nothing.
            signals: What was computed already of these groups, by name; taken as it is.

        Returns:
            An ``Outcome``.

        Raises:
            ValueError: An input it needs is missing, a shape does not fit the rewards', its signal is not finite for a
                live group, or rewards that calibrate lie further apart than ``reward_range``.
        """
        if not rewards.is_floating_point():
            rewards = rewards.float()
        given: dict[str, Any] = {
            "embeddings": embeddings,
            "points": points,
            "point_mask": point_mask,
            "similarity": similarity,
            "labels": labels,
            "texts": texts,
            "log_probs": log_probs,
            "lengths": lengths,
            "scores": scores,
            "mask": mask,
        }
        there = signals or {}
        self._check(rewards, given, also, there)
        counted, live = groups.finite(rewards, mask), groups.live(rewards, mask)
        self._check_range(rewards, counted)
        norms = NORMS[self.norms](*(given[name] for name in self._norms_from)) if self._needs_norms else None
        advantages = BASES[self.base](rewards, mask=counted, **({"norms": norms} if self._base_needs_norms else {}))
        inputs = given | {
            "rewards": rewards,
            "advantages": advantages,
            "reward_range": self.reward_range,
            "mask": counted,
        }
        found = {"reward_dispersion": reward_dispersion(rewards, counted, self.reward_range), **there}
        for name in [self.signal, *also]:
            if name is not None and name not in found:
                found[name] = SIGNALS[name](inputs)
        weights = self._weights(found, counted, live)
        weighted = advantages * weights.unsqueeze(-1)
        if self.damps and norms is not None:
            weighted = weighted * self._damped(norms, counted & live.unsqueeze(-1), advantages)
        return Outcome(weighted.to(rewards.dtype), advantages, weights, found, live, counted)

    def _damped(self, norms: Tensor, counted: Tensor, advantages: Tensor) -> Float[Tensor, "B G"]:
        """Each power has mean 1 of its own, so that a response's side of the baseline gains no weight as such."""
        v = {c: damping(norms, counted, c) for c in (self.damping, self._below)}
        if self.renormalize:
            v = {c: renormalize(w.flatten(), counted.flatten()).view_as(w) for c, w in v.items()}
        return torch.where(advantages < 0, v[self._below], v[self.damping])

    def _weights(self, signals: dict[str, Tensor], counted: Tensor, live: Tensor) -> Float[Tensor, " B"]:
        rd = signals["reward_dispersion"]
        if self.signal is None:
            return live.to(rd.dtype)
        self._check_finite(signals[self.signal], live)
        u = normalized(SIGNALS[self.signal], signals[self.signal], counted, self.scale)
        u = CALIBRATIONS[self.calibration](u, rd.clamp(max=1))  # rounding may pass 1
        weights = torch.where(live, MODULATIONS[self.modulation](u, self.alpha), 0)
        return renormalize(weights, live) if self.renormalize else weights

    def _check_finite(self, signal: Tensor, live: Tensor) -> None:
        """One group without a weight would take the weights of all others with it, and then the update."""
        if wrong := int((live & ~signal.isfinite()).sum()):
            raise ValueError(
                f"signal {self.signal!r} of recipe {self.name!r} is not finite for {wrong} of {int(live.sum())} live "
                "groups: let it leave out what it cannot measure (docs/signals.md), or choose another."
            )

    def _check_range(self, rewards: Tensor, counted: Tensor) -> None:
        """A calibration by rewards beyond their range would take every group for pure signal, and do so in silence."""
        if self.signal is None or (self.calibration == "none" and "reward_range" not in SIGNALS[self.signal].takes):
            return
        low, high = groups.extremes(groups.promote(rewards), counted)
        widest = (high - low).amax().item() if len(rewards) else 0.0
        if widest > self.reward_range * 1.001:
            raise ValueError(
                f"reward_range of recipe {self.name!r} is {self.reward_range:g}, but rewards of one group lie "
                f"{widest:g} apart: set reward_range (gcpo_reward_range in GCPOConfig, algorithm.gcpo.reward_range on "
                "verl) to the largest minus the smallest reward a response can get."
            )

    def _check(self, rewards: Tensor, given: dict[str, Any], also: Sequence[str], there: Collection[str]) -> None:
        if rewards.ndim != 2:
            raise ValueError(f"rewards must be (groups, responses), found shape {tuple(rewards.shape)}: reshape them.")
        wanted = [*also] if self.signal is None else [self.signal, *also]
        unknown = [name for name in wanted if name not in SIGNALS]
        if unknown:
            raise ValueError(f"a signal must be one of {', '.join(SIGNALS)}, found {unknown[0]!r}.")
        needs = {f"recipe {self.name!r}": self._needs_beside(there)}
        needs |= {f"signal {name!r}": _needed([name]) for name in also if name not in there}
        for who, names in needs.items():
            missing = [n for n in names if given[n] is None and any(given[m] is None for m in primary([n]))]
            if missing:
                raise ValueError(f"{who} needs {' and '.join(missing)}: pass {missing[0]}=... with it.")
        for name, value in given.items():
            if value is not None:
                _check_shape(name, value, rewards)


def _needed(signals: Iterable[str]) -> tuple[str, ...]:
    """Inputs that some signals cannot do without and a recipe does not have anyway."""
    needs = dict.fromkeys(name for signal in signals for name in SIGNALS[signal].needs)
    return tuple(name for name in needs if name not in ("rewards", "advantages"))


_NDIM = {
    "embeddings": 3,
    "points": 4,
    "point_mask": 3,
    "similarity": 3,
    "labels": 2,
    "log_probs": 2,
    "lengths": 2,
    "scores": 3,
    "mask": 2,
}


def _check_shape(name: str, value: Any, rewards: Tensor) -> None:
    if name == "texts":
        sizes = [len(group) for group in value]
        if sizes != [rewards.shape[1]] * rewards.shape[0]:
            raise ValueError(
                f"texts must be a list of {rewards.shape[0]} groups of {rewards.shape[1]} responses like the rewards, "
                f"found groups of {sizes}."
            )
        return
    if name == "similarity" and value.shape != (*rewards.shape, rewards.shape[1]):
        raise ValueError(
            f"similarity must be (groups, responses, responses) like the rewards {tuple(rewards.shape)}, found "
            f"{tuple(value.shape)}."
        )
    if value.shape[:2] != rewards.shape or value.ndim != _NDIM[name]:
        raise ValueError(
            f"{name} must have {_NDIM[name]} dimensions, the first two those of rewards "
            f"{tuple(rewards.shape)}, found {tuple(value.shape)}."
        )
    if name.endswith("mask") and value.dtype != torch.bool:
        raise ValueError(f"{name} must be boolean, found {value.dtype}: pass {name}.bool().")


def normalized(
    signal: Signal, value: Float[Tensor, " B"], counted: Bool[Tensor, "B G"], scale: float = 1.0
) -> Float[Tensor, " B"]:
    """A signal in [0, 1]: 0 at its least value, 1 for the largest it takes on as many responses.

    A signal v without upper bound enters as v / (v + scale). So a focal modulation of it is (1 + v / scale)^-alpha:
    for large v the weights are inverse powers of it. No statistic of the batch enters, so no group hangs on another.
    """
    n = counted.sum(-1).to(value.dtype)
    lower = signal.lower(n)
    v = (value - lower).clamp(min=0)
    if signal.upper is None:
        return 1 - 1 / (1 + v / scale)
    upper = signal.upper(n)
    return (v / torch.where(upper > lower, upper - lower, 1)).clamp(max=1)


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
        Recipe("score-baseline", base="score-baseline", source="Greensmith et al. 2004, leave-one-out; this project"),
        # docs/results/alignment.md: what pointed closest to the true gradient, with clean and with noisy rewards;
        # docs/results/study.md: what it trains like.
        Recipe("gcpo", base="rloo", damping=1.0, source="this project, on evidence"),
        # About the same from log-probabilities alone.
        Recipe(
            "gcpo-surprisal",
            base="score-baseline",
            damping=1.0,
            norms="surprisal",
            source="this project, on evidence",
        ),
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
