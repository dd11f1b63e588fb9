"""A recipe for hosts whose driver holds a whole batch as flat rows; knows no host.

R rows; N responses, those with a token that trains and those without; B groups of at most G of them.
"""

import functools
import importlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import ModuleType
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gcpo.advantages import BASES
from gcpo.integrations.rows import Rows
from gcpo.integrations.steering import consider, measure_texts, metrics_of, needed
from gcpo.probe.live import GradientWatch
from gcpo.recipes import Outcome, Recipe, recipe
from gcpo.semantics import TextEmbedder, check_equivalence, text_embedder
from gcpo.signals import SIGNALS

HOSTS_OWN = "verl"
"""As ``base``: keep the host's advantages and scale them."""

_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("alpha", "scale", "damping", "damping_below", "reward_range"), (int, float)),
    **dict.fromkeys(
        ("recipe", "base", "signal", "calibration", "modulation", "norms", "embedder", "equivalence"), (str,)
    ),
    **dict.fromkeys(("enable", "renormalize"), (bool,)),
    **dict.fromkeys(("max_points", "workers"), (int,)),
    "log_signals": (list, tuple),
}


@dataclass(frozen=True)
class Options:
    """What a user may set; a part of the recipe left at None stays as the recipe has it.

    A sentence about a wrong option begins with its name, so that a host can put its own prefix before it.

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
        damping_below: The same for negative advantages.
        norms: Where lengths of scores come from: ``"scores"`` or ``"surprisal"``.
        renormalize: Whether weights are scaled to mean 1 over the live groups of a batch.
        reward_range: Largest minus smallest reward a response can get.
        embedder: Source of the geometry: ``"hashed"`` n-grams of the text, ``"policy"`` for the actor's hidden states,
            ``"reward"`` for vectors the reward function returns, else a sentence-transformers model by path or hub id.
        equivalence: When two answers mean the same; ``"cosine:T"`` goes by the embeddings.
        max_points: Most steps a response is split into.
        log_signals: Further signals to log.
        workers: Ray actors that embed texts and compute signals, of as many groups each; 0 for the driver itself.

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
    damping_below: float | None = None
    norms: str | None = None
    renormalize: bool | None = None
    reward_range: float | None = None
    embedder: str = "hashed"
    equivalence: str = "folded"
    max_points: int = 8
    log_signals: Sequence[str] = field(default_factory=tuple)
    workers: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kinds = getattr(self, f.name), _KINDS[f.name]
            odd = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            if odd and not (value is None and f.default is None):
                raise ValueError(f"{f.name} must be {' or '.join(k.__name__ for k in kinds)}, found {value!r}.")
        unknown = [name for name in self.log_signals if name not in SIGNALS]
        if unknown:
            raise ValueError(f"log_signals has no signal {unknown[0]!r}: known are {', '.join(SIGNALS)}.")
        if self.base not in (None, HOSTS_OWN, *BASES):
            raise ValueError(f"base must be one of {', '.join((*BASES, HOSTS_OWN))}, found {self.base!r}.")
        check_equivalence(self.equivalence, "equivalence")
        if not self.embedder.strip():
            raise ValueError(f"embedder must name where vectors come from, found {self.embedder!r}: leave it out.")
        if self.max_points < 1:
            raise ValueError(f"max_points must be at least 1, found {self.max_points}.")
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, found {self.workers}.")
        if self.build_recipe().damps and self.scales:
            raise ValueError(
                "base='verl' cannot go with damping, which belongs to a base of its own: set damping=0 "
                "and damping_below=0 or choose another base."
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
        raise ValueError(f"{unknown[0]} is no option: there are {', '.join(known)}.")
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


@dataclass(frozen=True)
class Groups:
    """What a recipe takes of a batch, before texts are embedded; zeros and "" where there is no response.

    Attributes:
        rewards: (B, G).
        mask: (B, G), responses with a token that trains.
        fields: What the host had of them, (B, G, ...) each.
        texts: B * G of them, groups contiguous.
    """

    rewards: Float[Tensor, "B G"]
    mask: Bool[Tensor, "B G"]
    fields: dict[str, Tensor]
    texts: list[str]

    def split(self, parts: int) -> list["Groups"]:
        """The groups in so many parts, as even as can be; in fewer where there are fewer groups."""
        parts = max(1, min(parts, len(self.rewards)))
        ends = [len(self.rewards) * i // parts for i in range(parts + 1)]
        G = self.rewards.shape[1]
        return [
            Groups(
                self.rewards[i:j],
                self.mask[i:j],
                {name: value[i:j] for name, value in self.fields.items()},
                self.texts[i * G : j * G],
            )
            for i, j in itertools.pairwise(ends)
        ]


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
        rows, groups = batch.rows, self._groups(batch)
        outcome = self.consider(groups, self._shared(groups) if self.options.workers else None)
        values = outcome.weights.unsqueeze(-1) * outcome.counted if self.options.scales else outcome.advantages
        metrics = metrics_of(outcome, rows.present) | self._watched(outcome, groups.fields)
        return Steered(rows.spread(values), metrics | {"gcpo/overhead_s": time.perf_counter() - started}, outcome)

    def consider(self, groups: Groups, signals: Mapping[str, Float[Tensor, " B"]] | None = None) -> Outcome:
        """The recipe's outcome; texts are embedded here unless all signals are there already."""
        embedded = {} if self._embedder is None or signals is not None else self._embedded(self._embedder, groups)
        outcome, _ = consider(
            self.recipe,
            groups.rewards,
            groups.fields | embedded,
            groups.texts,
            also=self.options.log_signals,
            equivalence=self.options.equivalence,
            mask=groups.mask,
            signals=signals,
        )
        return outcome

    def signals(self, groups: Groups) -> dict[str, Float[Tensor, " B"]]:
        """Every signal of some groups; what a worker is asked."""
        return self.consider(groups).signals

    def _shared(self, groups: Groups) -> dict[str, Float[Tensor, " B"]]:
        """The same by the workers, each with as many groups as the others."""
        parts = groups.split(len(self._workers))
        found = _ray().get([worker.signals.remote(part) for worker, part in zip(self._workers, parts, strict=False)])
        return {name: torch.cat([signals[name] for signals in found]) for name in found[0]}

    @functools.cached_property
    def _workers(self) -> list[Any]:
        """Ray actors, each with a driver of its own; they ask for no CPU, so that they start beside whatever runs."""
        actor = _ray().remote(num_cpus=0, scheduling_strategy="SPREAD")(Driver)
        return [actor.remote(replace(self.options, workers=0)) for _ in range(self.options.workers)]

    @property
    def _reads(self) -> bool:
        return bool(self.needs & ({"labels", "texts"} | ({"embeddings", "points"} if self._embedder else set())))

    def _groups(self, batch: Batch) -> Groups:
        """What the recipe takes of a batch, at its places."""
        rows = batch.rows
        last = rows.last[rows.present].tolist()
        remaining = iter(batch.texts(last) if self._reads else [])
        texts = [next(remaining, "") if there else "" for there in rows.present.flatten().tolist()]
        measured: dict[str, Tensor] = {}
        embedded = {"embeddings", "points"} if self._embedder else set()
        for name in sorted(self.needs - {"rewards", "advantages", "labels", "texts"} - embedded):
            found = [value.float().cpu() for value in batch.field(name, last)]
            measured |= _clouds(found) if name == "points" else {name: torch.stack(found)}
        fields = {name: rows.fill(value) for name, value in measured.items()}
        return Groups(rows.group(batch.rewards), rows.group(batch.trains), fields, texts)

    def _embedded(self, embedder: TextEmbedder, groups: Groups) -> dict[str, Tensor]:
        measured = measure_texts(embedder, groups.texts, self.needs, self.options.max_points)
        return {name: value.unflatten(0, groups.rewards.shape) for name, value in measured.items()}

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


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError("workers are Ray actors, and Ray is not installed: install it, or set workers=0.") from error


def _clouds(points: list[Tensor]) -> dict[str, Tensor]:
    """Clouds of different size, padded: points (N, S, D) and point_mask (N, S)."""
    sizes = torch.tensor([len(cloud) for cloud in points])
    padded = torch.nn.utils.rnn.pad_sequence(points, batch_first=True)
    return {"points": padded, "point_mask": torch.arange(padded.shape[1]) < sizes.unsqueeze(-1)}
