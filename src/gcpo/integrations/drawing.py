"""A generation batch of TRL drawn in parts, each decided by the rewards of those before: what two plans share.

The plans are ``spending.FirstDraws`` and ``dynamic.DynamicSampling``. TRL's ``_generate`` is called once a part; only
what it calls in turn, ``_generate_single_turn``, is given fewer rows than there are, since all else gathers as many
rows from every process. Rewards are asked for of what was drawn, once each; metrics that reward functions log are
those of the first part, which no reward has chosen. The batch keeps its shape: a response that is never drawn is an
empty row without a reward, which no statistic counts, no loss sees and packing leaves out.
"""

import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from trl import GRPOTrainer

from gcpo.integrations import packing
from gcpo.integrations.steering import total, unchanged

# A mixin calls what its host has; to the type checker it is one.
_Host = GRPOTrainer if TYPE_CHECKING else object


@dataclass
class Draws:
    """A generation batch under way: L rows of this process, N of all, in groups of G.

    Attributes:
        inputs: Rows of the data set.
        place: Of each row among all N.
        G: Responses a group.
        step: Micro-steps trained before, the same on all processes and in a resumed run.
        rewards: Of K reward functions, NaN for what is not scored.
        weights: Of the reward functions.
        empty: What stands for a response that is not drawn.
        prompts: The host's own list, which it logs when all is drawn.
        said: Tokens of each response, None if it is not drawn.
        now: Rows that are drawn next, or were last.
        drawn: Rows that were.
        extra: What reward functions log of each response.
        counts: This process's; logged are their sums.
        noted: Logged as it is, the same on all processes.
    """

    inputs: list[Any]
    place: Int[Tensor, " L"]
    G: int
    step: int
    rewards: Float[Tensor, "N K"]
    weights: Float[Tensor, " K"]
    empty: list[int]
    prompts: list[Any] = field(init=False)
    said: list[list[int] | None] = field(init=False)
    now: Bool[Tensor, " L"] = field(init=False)
    drawn: Bool[Tensor, " L"] = field(init=False)
    extra: dict[str, list[Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"responses": 0, "tokens": 0, "asked": 0})
    noted: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.said = [None] * len(self.inputs)
        self.now = self.drawn = torch.zeros(len(self.inputs), dtype=torch.bool)

    @property
    def group(self) -> Int[Tensor, " L"]:
        """Of each row, among all processes' groups."""
        return self.place.div(self.G, rounding_mode="floor")

    @property
    def scored(self) -> Float[Tensor, "B G"]:
        """The rewards of all processes' groups, NaN where there is none yet."""
        return total(self.rewards, self.weights).view(-1, self.G).cpu()

    @property
    def filled(self) -> list[list[int]]:
        """Tokens of each row; one that is not drawn repeats the one before, for TRL's metrics of lengths."""
        last = next((ids for ids in self.said if ids is not None), self.empty)
        return [last := last if ids is None else ids for ids in self.said]


class Plan(Protocol):
    """What is drawn, and when."""

    @property
    def option(self) -> str:
        """The setting that asks for it."""

    @property
    def metrics(self) -> str:
        """What the names of its metrics begin with."""

    def parts(self, draws: Draws) -> Iterator[Bool[Tensor, " L"]]:
        """Yields the rows to draw; when it is asked for more, those are scored."""


class DrawingMixin(_Host):  # type: ignore[misc,valid-type]
    """Wraps ``_generate``, ``_generate_single_turn`` and ``_calculate_rewards``; mix in before ``GRPOTrainer``."""

    has_whole_model: bool
    _plan: Plan | None = None
    _draws: Draws | None = None

    def begin_draws(self, plan: Plan | None, images: bool = False) -> None:
        """Once, when the trainer is built.

        Args:
            plan: What to draw when; None to draw all at once.
            images: Whether prompts have images.

        Raises:
            ValueError: The host generates in a way that this cannot be done in.
        """
        self._plan = plan
        if plan is None:
            return
        tokenizer: Any = getattr(self, "_tokenizer", self.processing_class)
        self._empty_response = [tokenizer.eos_token_id]
        generate = getattr(GRPOTrainer, "_generate", None)
        reasons = {
            "a trl whose GRPOTrainer has no _generate(self, prompts)": generate is None
            or tuple(inspect.signature(generate).parameters) != ("self", "prompts"),
            "vLLM": self.use_vllm,
            "tools": bool(getattr(self, "tools", None)),
            "environments": bool(getattr(self, "environment_factories", None) or getattr(self, "environments", None)),
            "a rollout_func": getattr(self, "rollout_func", None) is not None,
            "images": images,
            "a sharded model": not self.has_whole_model,
        }
        for reason in (reason for reason, holds in reasons.items() if holds):
            raise ValueError(f"{plan.option} cannot be used with {reason}: leave it out.")

    def hear(self, rows: Int[Tensor, " n"], said: list[list[int]]) -> None:
        """These rows of the batch were drawn just now, some perhaps once more."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        if self._plan is None or not self.model.training:
            whole: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return whole
        L = len(inputs)
        size = (L * self.accelerator.num_processes, len(self.reward_funcs))
        self._draws = Draws(
            list(inputs),
            self.accelerator.process_index * L + torch.arange(L),
            self.num_generations,
            self._step,
            torch.full(size, torch.nan, device=self.accelerator.device),
            self.reward_weights,
            self._empty_response,
        )
        try:
            output: dict[str, Any] = super()._generate_and_score_completions(self._draws.inputs)
            return self._without_undrawn(output, self._draws)
        finally:
            self._draws = None

    def _generate(self, prompts: list[Any], *rest: Any, **named: Any) -> Any:
        draws = self._draws
        if draws is None or self._plan is None:
            return super()._generate(prompts, *rest, **named)
        draws.prompts = prompts
        metrics, seen = self._metrics["train"], self.state.num_input_tokens_seen
        before = {name: list(values) for name, values in metrics.items()}
        for k, part in enumerate(self._plan.parts(draws)):
            draws.now, draws.drawn = part, draws.drawn | part
            metrics.clear()  # TRL logs the batch whenever it comes by, which is to be once
            metrics.update({name: list(values) for name, values in before.items()})
            generated = super()._generate(prompts, *rest, **named)
            _, said, _, completions, *_ = generated
            self._score_drawn(draws, completions, said, first=k == 0)
        for i in (~draws.drawn).nonzero().flatten().tolist():
            said[i] = self._empty_response
            completions[i] = "" if isinstance(completions[i], str) else [{"role": "assistant", "content": ""}]
        self._record_draws(draws, seen, self._plan.metrics)
        return generated

    def _generate_single_turn(self, prompt_ids: Any, *rest: Any, **named: Any) -> Any:
        draws = self._draws
        if draws is None:
            return super()._generate_single_turn(prompt_ids, *rest, **named)
        rows = draws.now.nonzero().flatten().tolist()
        others: list[Any] = [None]
        if rows:
            said, *others = super()._generate_single_turn([prompt_ids[i] for i in rows], *rest, **named)
            for i, ids in zip(rows, said, strict=True):
                draws.said[i] = ids
                draws.counts["responses"] += 1
                draws.counts["tokens"] += len(ids)
                draws.counts["asked"] += len(prompt_ids[i])
        self.hear(torch.tensor(rows, dtype=torch.long), [draws.said[i] or [] for i in rows])
        return (draws.filled, *others)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        if self._draws is None:
            rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            return rewards
        self._pending_extra_logs.update(self._draws.extra)
        return self._draws.rewards

    def _score_drawn(self, draws: Draws, completions: list[Any], said: list[Any], first: bool) -> None:
        """Put the rewards of the rows drawn last where they belong."""
        L, device = len(draws.inputs), self.accelerator.device
        own, there = (mask.nonzero().flatten() for mask in (draws.now, draws.drawn))
        n = int(self.accelerator.gather(torch.tensor([len(own)], device=device)).amax())
        if not n:
            return
        # As many on every process; one that has fewer scores some again, and one that has drawn none any row.
        again = there if len(there) else torch.zeros(1, dtype=torch.long)
        rows = torch.cat([own, again.repeat(n)])[:n]
        chosen = [[of[i] for i in rows.tolist()] for of in (draws.inputs, draws.prompts, completions, said)]
        with nullcontext() if first and len(own) else unchanged(self._pending_metrics):
            found = super()._calculate_rewards(*chosen)
        place = self.accelerator.gather(draws.place[rows].to(device))
        real = self.accelerator.gather((torch.arange(n) < len(own)).to(device))
        draws.rewards[place[real]] = found[real]
        for column in {*draws.extra, *self._pending_extra_logs}:
            kept = draws.extra.setdefault(column, [None] * L)
            values = self._pending_extra_logs.get(column, [None] * n)
            for i, value in zip(own.tolist(), values, strict=False):
                kept[i] = value
        self._pending_extra_logs.clear()

    def _record_draws(self, draws: Draws, seen: int, prefix: str) -> None:
        """What was drawn; TRL has counted the tokens of the batch, of which some were not drawn, or others too."""
        counts = torch.tensor([list(draws.counts.values())], device=self.accelerator.device)
        counted = dict(zip(draws.counts, self.accelerator.gather(counts).sum(0).tolist(), strict=True))
        self.state.num_input_tokens_seen = seen + counted.pop("asked") + counted["tokens"]
        metrics = self._metrics["train"]
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        for name, value in (counted | draws.noted).items():
            metrics[f"{prefix}/{name}"].append(float(value))

    def _without_undrawn(self, output: dict[str, Any], draws: Draws) -> dict[str, Any]:
        """The batch with no token of a row that was not drawn, neither to train on nor in the loss's normaliser."""
        mask = output["completion_mask"]
        output["completion_mask"] = mask.masked_fill(~draws.drawn.unsqueeze(1).to(mask.device), 0)
        output["num_items_in_batch"] = self.accelerator.gather(packing.loss_mask(output).sum()).sum()
        return output
