"""A recipe for hosts whose driver holds a whole batch as flat rows; knows no host.

R rows; N responses, those with a token that trains and those without; B groups of at most G of them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo.integrations.rows import Rows
from gcpo.integrations.steering import consider, measure_texts, metrics_of, needed
from gcpo.probe.live import GradientWatch
from gcpo.recipes import Outcome, Recipe, recipe
from gcpo.semantics import check_equivalence, text_embedder
from gcpo.signals import SIGNALS

HOSTS_OWN = "verl"
"""As ``base``: keep the host's advantages and scale them."""

_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("alpha", "scale", "damping", "reward_range"), (int, float)),
    **dict.fromkeys(
        ("recipe", "base", "signal", "calibration", "modulation", "norms", "embedder", "equivalence"), (str,)
    ),
    **dict.fromkeys(("enable", "renormalize"), (bool,)),
    "max_points": (int,),
    "log_signals": (list, tuple),
}


@dataclass(frozen=True)
class Options:
    """What a user may set under ``algorithm.gcpo``; a part of the recipe left at None stays as the recipe has it.

    Attributes:
        enable: Whether the recipe steers the run.
        recipe: Name of the recipe.
        base: Base advantage in place of the recipe's, or ``"verl"`` to scale the advantages of verl's estimator.
        signal: Uncertainty signal in place of the recipe's.
        calibration: How reward dispersion enters.
        modulation: From uncertainty to weight.
        alpha: Strength of the modulation.
        scale: Value of a signal without an upper bound that counts as half.
        damping: Power of the length of a response's score that its advantage is divided by.
        norms: Where lengths of scores come from: ``"scores"`` or ``"surprisal"``.
        renormalize: Whether weights are scaled to mean 1 over the live groups of a batch.
        reward_range: Largest minus smallest reward a response can get.
        embedder: Source of the geometry: ``"hashed"`` n-grams of the text, ``"policy"`` for the actor's hidden states,
            ``"reward"`` for vectors the reward function returns, else a sentence-transformers model by path or hub id.
        equivalence: When two answers mean the same; ``"cosine:T"`` goes by the embeddings.
        max_points: Most steps a response is split into.
        log_signals: Further signals to log.

    Raises:
        ValueError: An option has a value it cannot have.
    """

    enable: bool = True
    recipe: str = "gcpo-bot"
    base: str | None = None
    signal: str | None = None
    calibration: str | None = None
    modulation: str | None = None
    alpha: float | None = None
    scale: float | None = None
    damping: float | None = None
    norms: str | None = None
    renormalize: bool | None = None
    reward_range: float | None = None
    embedder: str = "hashed"
    equivalence: str = "folded"
    max_points: int = 8
    log_signals: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kinds = getattr(self, f.name), _KINDS[f.name]
            odd = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            if odd and not (value is None and f.default is None):
                raise ValueError(
                    f"algorithm.gcpo.{f.name} must be {' or '.join(k.__name__ for k in kinds)}, found {value!r}."
                )
        unknown = [name for name in self.log_signals if name not in SIGNALS]
        if unknown:
            raise ValueError(
                f"algorithm.gcpo.log_signals has no signal {unknown[0]!r}: known are {', '.join(SIGNALS)}."
            )
        check_equivalence(self.equivalence, "algorithm.gcpo.equivalence")
        if self.max_points < 1:
            raise ValueError(f"algorithm.gcpo.max_points must be at least 1, found {self.max_points}.")
        if self.scales and self.build_recipe().damping:
            raise ValueError(
                "algorithm.gcpo.base='verl' cannot go with damping, which belongs to a base of its own: set damping=0 "
                "or choose another base."
            )

    @property
    def scales(self) -> bool:
        """Whether the host's advantages stay and are scaled, not replaced."""
        return self.base == HOSTS_OWN

    def build_recipe(self) -> Recipe:
        """The recipe with its parts replaced as configured."""
        parts = [f.name for f in fields(Recipe) if f.name not in ("name", "source")]
        changes = {part: value for part in parts if (value := getattr(self, part)) is not None}
        changes |= {part: float(value) for part, value in changes.items() if float in _KINDS[part]}
        if self.scales:
            changes["base"] = "grpo"  # what signals take for advantages; none of it is used
        return recipe(self.recipe, **changes)


def read_options(given: Mapping[str, Any]) -> Options:
    """Options from a configuration.

    Raises:
        ValueError: A key is not known, or a value cannot be.
    """
    known = [f.name for f in fields(Options)]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(f"algorithm.gcpo has no option {unknown[0]!r}: its options are {', '.join(known)}.")
    return Options(**given)


class Batch(Protocol):
    """A host's batch of R rows."""

    rows: Rows
    rewards: Float[Tensor, " R"]
    """One a row; that of a response's last row counts."""
    trains: Bool[Tensor, " R"]
    """Rows with a token that trains."""

    def texts(self, rows: Sequence[int]) -> list[str]:
        """The decoded responses of some rows."""

    def field(self, name: str, rows: Sequence[int]) -> list[Tensor]:
        """Something the host has of some rows, a tensor each.

        ``log_probs`` (), ``lengths`` (), ``scores`` (F,); and ``embeddings`` (D,) and ``points`` (S, D), where the
        embedder is "policy" or "reward".

        Raises:
            ValueError: It has it not.
        """


@dataclass(frozen=True)
class Steered:
    """What a recipe makes of a batch.

    Attributes:
        values: (R,) advantages of the rows, or factors for those of the host; 0 for rows without a response.
        metrics: To log.
        outcome: Of the recipe.
    """

    values: Float[Tensor, " R"]
    metrics: dict[str, float]
    outcome: Outcome


class Driver:
    """Steers a host's batches by a recipe.

    Args:
        options: What the user set.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.recipe = options, options.build_recipe()
        self.needs = needed(self.recipe, options.log_signals, options.equivalence)
        """Inputs the recipe and the logged signals take."""
        self._embedder = None if options.embedder in ("policy", "reward") else text_embedder(options.embedder)
        self._watch = GradientWatch()

    @property
    def from_policy(self) -> set[str]:
        """Inputs that only the actor's own forward pass gives."""
        geometry = {"embeddings", "points"} if self.options.embedder == "policy" else set()
        return self.needs & ({"scores"} | geometry)

    def __call__(self, batch: Batch) -> Steered:
        """The recipe's view of a batch."""
        started = time.perf_counter()
        rows = batch.rows
        last = rows.last[rows.present].tolist()
        texts = batch.texts(last) if self._reads else []
        measured = {name: rows.fill(value) for name, value in self._measured(batch, last, texts).items()}
        outcome, inputs = consider(
            self.recipe,
            rows.group(batch.rewards),
            measured,
            self._at_places(rows, texts),
            also=self.options.log_signals,
            equivalence=self.options.equivalence,
            mask=rows.group(batch.trains),
        )
        values = outcome.weights.unsqueeze(-1) * outcome.counted if self.options.scales else outcome.advantages
        metrics = metrics_of(outcome, rows.present) | self._watched(outcome, inputs)
        return Steered(rows.spread(values), metrics | {"gcpo/overhead_s": time.perf_counter() - started}, outcome)

    @property
    def _reads(self) -> bool:
        return bool(self.needs & ({"labels", "texts"} | ({"embeddings", "points"} if self._embedder else set())))

    @staticmethod
    def _at_places(rows: Rows, texts: list[str]) -> list[str]:
        """The texts in the order of (B, G), "" where there is no response."""
        remaining = iter(texts)
        return [next(remaining, "") if there else "" for there in rows.present.flatten().tolist()]

    def _measured(self, batch: Batch, last: list[int], texts: list[str]) -> dict[str, Tensor]:
        """What the recipe takes of N responses, (N, ...) each."""
        measured = {}
        wanted = self.needs - {"rewards", "advantages", "labels", "texts"}
        if self._embedder:
            measured = measure_texts(self._embedder, texts, wanted, self.options.max_points)
        for name in sorted(wanted - measured.keys()):
            found = [value.float().cpu() for value in batch.field(name, last)]
            measured |= _clouds(found) if name == "points" else {name: torch.stack(found)}
        return measured

    def _watched(self, outcome: Outcome, inputs: dict[str, Tensor]) -> dict[str, float]:
        """The noise of the output layer's gradient, advantages times scores, where scores are at hand."""
        if "scores" not in inputs:
            return {}
        started = time.perf_counter()
        signal = None if self.recipe.signal is None else outcome.signals[self.recipe.signal]
        shares = outcome.base.unsqueeze(-1) * inputs["scores"]
        seen, _ = self._watch(shares, outcome.live, outcome.counted, signal)
        seen["overhead_s"] = time.perf_counter() - started
        return {f"gcpo/grad/{name}": value for name, value in seen.items()}


def _clouds(points: list[Tensor]) -> dict[str, Tensor]:
    """Clouds of different size, padded: points (N, S, D) and point_mask (N, S)."""
    sizes = torch.tensor([len(cloud) for cloud in points])
    padded = torch.nn.utils.rnn.pad_sequence(points, batch_first=True)
    return {"points": padded, "point_mask": torch.arange(padded.shape[1]) < sizes.unsqueeze(-1)}
