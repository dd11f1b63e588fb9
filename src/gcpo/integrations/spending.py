"""First draws on TRL: n0 responses of each prompt are drawn and scored, then the rest of the groups worth completing.

What this does to the update is in ``advantages.first_draws``. The batch keeps its shape: a response that is never
drawn is an empty row without a reward, which no statistic counts, no loss sees and packing leaves out. TRL's
``_generate`` is called twice; only what it calls in turn, ``_generate_single_turn``, is given fewer rows than there
are, since all else gathers as many rows from every process. Rewards are asked for of what was drawn, once each. First
draws are spread over a group, so that a group on several processes gives each of them some.

The mean ``reward`` that TRL logs is over what was drawn, in which groups worth completing have more rows:
``gcpo/first_draws/reward``, over first draws alone, is the policy's. So are the metrics that reward functions log.
"""

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from trl import GRPOTrainer

from gcpo.groups import live
from gcpo.integrations import packing
from gcpo.integrations.steering import total, unchanged

# A mixin calls what its host has; to the type checker it is one.
_Host = GRPOTrainer if TYPE_CHECKING else object


@dataclass
class _Draws:
    """A generation batch under way: L rows of this process, N of all."""

    inputs: list[Any]
    group: Int[Tensor, " L"]
    now: Bool[Tensor, " L"]  # rows that are drawn next, or were last
    drawn: Bool[Tensor, " L"]
    rewards: Float[Tensor, "N K"] | None  # of K reward functions, NaN for what is not scored
    said: list[list[int] | None]
    extra: dict[str, list[Any]]  # what reward functions log of each response


class FirstDrawsMixin(_Host):  # type: ignore[misc,valid-type]
    """Wraps ``_generate``, ``_generate_single_turn`` and ``_calculate_rewards``; mix in before ``GRPOTrainer``."""

    _draws: _Draws | None = None

    def begin_draws(self, first: int | None, images: bool = False) -> None:
        """Once, when the trainer is built.

        Args:
            first: n0, between 2 and G - 1; None to draw all at once.
            images: Whether prompts have images.

        Raises:
            ValueError: The host generates in a way that this cannot be done in.
        """
        self._first_draws = first
        if first is None:
            return
        tokenizer: Any = getattr(self, "_tokenizer", self.processing_class)
        self._empty_response = [tokenizer.eos_token_id]
        generate = getattr(GRPOTrainer, "_generate", None)
        reasons = {
            "a trl whose GRPOTrainer has no _generate(self, prompts)": generate is None
            or tuple(inspect.signature(generate).parameters) != ("self", "prompts"),
            "vLLM, which draws whole groups": self.use_vllm,
            "tools": bool(getattr(self, "tools", None)),
            "environments": bool(getattr(self, "environment_factories", None) or getattr(self, "environments", None)),
            "a rollout_func": getattr(self, "rollout_func", None) is not None,
            "images": images,
            "a sharded model": self.accelerator.distributed_type not in ("NO", "MULTI_CPU", "MULTI_GPU"),
        }
        for reason in (reason for reason, holds in reasons.items() if holds):
            raise ValueError(f"gcpo_first_draws cannot be used with {reason}: leave it out.")

    def hear(self, rows: Int[Tensor, " n"], said: list[list[int]]) -> None:
        """These rows of the batch were drawn just now."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        if self._first_draws is None or not self.model.training:
            whole: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return whole
        L, G = len(inputs), self.num_generations
        row = self.accelerator.process_index * L + torch.arange(L)
        first = row * self._first_draws % G < self._first_draws  # n0 of every G, as far apart as can be
        group = row.div(G, rounding_mode="floor")
        self._draws = _Draws(inputs, group, first, first, None, [None] * L, {})
        try:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return self._without_undrawn(output, self._draws)
        finally:
            self._draws = None

    def _generate(self, prompts: list[Any], *rest: Any, **named: Any) -> Any:
        draws = self._draws
        if draws is None:
            return super()._generate(prompts, *rest, **named)
        seen = self.state.num_input_tokens_seen
        with unchanged(self._metrics["train"]):  # TRL will come by again
            _, said, _, completions, *_ = super()._generate(prompts, *rest, **named)
        self.state.num_input_tokens_seen = seen
        rewards = self._score_drawn(draws, prompts, completions, said)
        scored = total(rewards, self.reward_weights).view(-1, self.num_generations)
        worth = live(scored).cpu()
        draws.now = worth[draws.group] & ~draws.drawn
        draws.drawn = draws.drawn | draws.now
        prompt_ids, said, tool_mask, completions, *others = super()._generate(prompts, *rest, **named)
        self._record_draws(
            ~draws.drawn, prompt_ids, said, {"completed": worth.float().mean(), "reward": scored.nanmean()}
        )
        for i in (~draws.drawn).nonzero().flatten().tolist():
            said[i] = self._empty_response
            completions[i] = "" if isinstance(completions[i], str) else [{"role": "assistant", "content": ""}]
        return (prompt_ids, said, tool_mask, completions, *others)

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
        self.hear(torch.tensor(rows, dtype=torch.long), [draws.said[i] or [] for i in rows])
        # Rows that are not drawn repeat the one before, for TRL's metrics of lengths; they are emptied after those.
        last = next((ids for ids in draws.said if ids is not None), self._empty_response)
        said = [last := last if ids is None else ids for ids in draws.said]
        return (said, *others)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        if self._draws is None:
            rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            return rewards
        rewards = self._score_drawn(self._draws, prompts, completions, completion_ids_list)
        self._pending_extra_logs.update(self._draws.extra)
        return rewards

    def _score_drawn(
        self, draws: _Draws, prompts: list[Any], completions: list[Any], said: list[Any]
    ) -> Float[Tensor, "N K"]:
        """Add the rewards of the rows drawn last to those there are."""
        L, device, first = len(draws.inputs), self.accelerator.device, draws.rewards is None
        if draws.rewards is None:
            size = (L * self.accelerator.num_processes, len(self.reward_funcs))
            draws.rewards = torch.full(size, torch.nan, device=device)
        own, there = (mask.nonzero().flatten() for mask in (draws.now, draws.drawn))
        n = int(self.accelerator.gather(torch.tensor([len(own)], device=device)).amax())
        if n:
            # As many on every process; one that has fewer scores some again, and one that has drawn none any row.
            again = there if len(there) else torch.zeros(1, dtype=torch.long)
            rows = torch.cat([own, again.repeat(n)])[:n]
            chosen = [[of[i] for i in rows.tolist()] for of in (draws.inputs, prompts, completions, said)]
            with nullcontext() if first and len(own) else unchanged(self._pending_metrics):
                found = super()._calculate_rewards(*chosen)
            place = self.accelerator.gather((self.accelerator.process_index * L + rows).to(device))
            real = self.accelerator.gather((torch.arange(n) < len(own)).to(device))
            draws.rewards[place[real]] = found[real]
            for column, values in self._pending_extra_logs.items():
                kept = draws.extra.setdefault(column, [None] * L)
                for i, value in zip(own.tolist(), values, strict=False):
                    kept[i] = value
            self._pending_extra_logs.clear()
        return draws.rewards

    def _record_draws(
        self, undrawn: Bool[Tensor, " L"], prompt_ids: Any, said: Any, further: dict[str, Tensor]
    ) -> None:
        """What was drawn, and the tokens that other rows would have had if they were as long as the last."""
        lengths = torch.tensor([[len(b), len(b) + len(a)] for a, b in zip(prompt_ids, said, strict=True)])
        counts = torch.stack([(~undrawn).sum(), lengths[~undrawn, 0].sum(), *lengths[undrawn].sum(0)])
        counts = self.accelerator.gather(counts.to(self.accelerator.device).unsqueeze(0)).sum(0)
        responses, drawn, saved, uncounted = counts.tolist()
        self.state.num_input_tokens_seen -= uncounted
        metrics = self._metrics["train"]
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        for name, value in ({"responses": responses, "tokens": drawn, "tokens_saved": saved} | further).items():
            metrics[f"gcpo/first_draws/{name}"].append(float(value))

    def _without_undrawn(self, output: dict[str, Any], draws: _Draws) -> dict[str, Any]:
        """The batch with no token of a row that was not drawn, neither to train on nor in the loss's normaliser."""
        mask = output["completion_mask"]
        output["completion_mask"] = mask.masked_fill(~draws.drawn.unsqueeze(1).to(mask.device), 0)
        output["num_items_in_batch"] = self.accelerator.gather(packing.loss_mask(output).sum()).sum()
        return output
