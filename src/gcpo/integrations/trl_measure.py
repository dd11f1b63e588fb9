"""What a recipe's signals need to know of responses, on TRL, from the least that has to be computed.

In this order: what the policy's own generation leaves behind (``semantics.tap``), what TRL's pass for old
log-probabilities leaves (``semantics.passed``), or a pass of ours over the responses whose geometry matters.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOTrainer

from gcpo.integrations import packing
from gcpo.integrations.steering import measure_texts
from gcpo.recipes import Outcome
from gcpo.semantics import TextEmbedder
from gcpo.semantics.passed import PassTap
from gcpo.semantics.policy import MEASURED, Measure, backbone_of, causal_of, has_plain_head, head_of
from gcpo.semantics.tap import GenerationTap, Tapped
from gcpo.signals import SIGNALS, primary

_LOGITS = 2**29
"""At most so many of them a pass of ours: 2 GiB in single precision."""

# A mixin calls what its host has; to the type checker it is one.
_Host = GRPOTrainer if TYPE_CHECKING else object


class MeasuringMixin(_Host):  # type: ignore[misc,valid-type]
    """Listens to the policy while TRL calls it, and measures its responses; mix in before ``PackedStepMixin``."""

    args: Any
    has_whole_model: bool
    tell: Any

    def begin_measuring(self, needs: set[str], embedder: TextEmbedder | None, images: bool = False) -> None:
        """Once, when the trainer is built.

        Args:
            needs: Inputs of signals that are wanted.
            embedder: Where embeddings and points come from; None for the policy.
            images: Whether prompts have images.

        Raises:
            ValueError: The policy would have to measure responses to images.
        """
        args, wanted = self.args, MEASURED & needs
        self._embedder = embedder
        self._by_text = wanted & ({"embeddings", "points"} if embedder else set())
        self._by_policy = wanted - self._by_text
        if images:
            self._refuse_images()
        tokenizer: Any = getattr(self, "_tokenizer", self.processing_class)
        rows = args.per_device_train_batch_size
        if not self._by_policy.isdisjoint({"scores", "log_probs"}):  # by settings alone, so on every process as many
            rows = max(1, min(rows, _LOGITS // (len(tokenizer) * (args.max_completion_length or 2**15))))
        settings = (args.gcpo_max_points, self.temperature, rows, args.gcpo_steps)
        self._measure = Measure(tokenizer, self._by_policy, *settings)
        self._generation = self._make_generation_tap() if self._by_policy else None
        self._heard: list[tuple[Tensor, Tapped | None]] = []
        self._passed: PassTap | None = None
        self._plain_head: bool | None = None

    def listening(self) -> AbstractContextManager[None]:
        """To the policy while the host calls it: while it generates, else while old log-probabilities are computed."""
        if not self._by_policy:
            return nullcontext()
        self._heard = []
        if self._generation is not None:
            return self._generation.listening()
        self._passed = PassTap(backbone_of(self.accelerator.unwrap_model(self.model)))
        return self._passed.listening()

    def hear(self, rows: Tensor, said: list[list[int]]) -> None:
        """Keep what the generation of these rows leaves, before the next, in place of what an earlier one left."""
        if self._generation is None:
            return
        if not said:
            self._heard.append((rows, None))
            return
        ids = pad_sequence([torch.tensor(row) for row in said], batch_first=True).to(self.accelerator.device)
        lengths = torch.tensor([[len(row)] for row in said], device=ids.device)
        mask = torch.arange(ids.size(1), device=ids.device) < lengths
        self._heard = [self._without(rows, *part) for part in self._heard]
        self._heard.append((rows, self._generation.take(ids, mask)))

    def _without(self, gone: Tensor, rows: Tensor, tapped: Tapped | None) -> tuple[Tensor, Tapped | None]:
        """What a generation has left but for rows that were drawn again."""
        stay = ~torch.isin(rows, gone)
        if tapped is None or stay.all():
            return rows[stay], tapped
        return rows[stay], tapped.of(stay)

    def measured(
        self, output: dict[str, Any], texts: Sequence[str], ids: Sequence[Sequence[int]], wanted: Bool[Tensor, " N"]
    ) -> dict[str, Tensor]:
        """What signals need to know of all processes' N responses, (N, ...) each.

        ``measured`` among it, if some were left out that are not ``wanted``.

        Args:
            output: What TRL made of this process's responses.
            texts: What they say.
            ids: Their tokens.
            wanted: Which of all processes' responses matter.
        """
        measured = {}
        if self._embedder:
            S, steps = self.args.gcpo_max_points, self.args.gcpo_steps
            measured = measure_texts(self._embedder, texts, self._by_text, S, steps)
        if self._by_policy:
            measured |= self._measure_policy(output, ids, self.local(wanted))
        device = output["advantages"].device
        gathered = {name: self.accelerator.gather(value.to(device)) for name, value in measured.items()}
        if "points" in gathered:  # as many columns as lead to the last step of all; a tool's are left out
            used = 1 + max(gathered["point_mask"].any(0).nonzero().flatten().tolist(), default=0)
            gathered |= {name: gathered[name][:, :used] for name in ("points", "point_mask")}
        return gathered

    def without_unmeasured(self, outcome: Outcome, measured: Bool[Tensor, " B"]) -> Outcome:
        """NaN in place of the signals of groups that were spared the pass."""

        def known(name: str, value: Tensor) -> Tensor:
            return value.masked_fill(~measured, torch.nan) if self._by_policy & primary(SIGNALS[name].needs) else value

        return replace(outcome, signals={name: known(name, value) for name, value in outcome.signals.items()})

    def local(self, rows: Tensor) -> Tensor:
        """This process's part of what all have."""
        part: Tensor = rows.view(self.accelerator.num_processes, -1)[self.accelerator.process_index]
        return part

    def _refuse_images(self) -> None:
        if self._by_policy:
            raise ValueError(
                f"the policy's {' and '.join(sorted(self._by_policy))} cannot be had for responses to images: choose "
                "a recipe and signals that need none of it, and for embeddings set gcpo_embedder to a "
                "sentence-transformers model."
            )

    def _measure_policy(
        self, output: dict[str, Any], said: Sequence[Sequence[int]], wanted: Tensor
    ) -> dict[str, Tensor]:
        if "pixel_values" in output:  # of a tool
            self._refuse_images()
        ids = output["completion_ids"]
        # From the true lengths: mask_truncated_completions zeroes TRL's completion mask for truncated responses.
        lengths = torch.tensor([len(i) for i in said], device=ids.device)
        mask = torch.arange(ids.size(1), device=ids.device) < lengths.unsqueeze(1)
        spoken = mask & output["tool_mask"].bool() if "tool_mask" in output else mask
        model = self.accelerator.unwrap_model(self.model)
        rows = (backbone_of(model), output["prompt_ids"], output["prompt_mask"], ids, mask, spoken)
        found = self._overheard(output, wanted, model, *rows)
        known = torch.tensor([[int(wanted.sum()), int(found is not None)]], device=ids.device)
        known = self.accelerator.gather(known)  # so that every process makes the same passes, or none
        if found is not None and known[:, 1].all():
            return found
        chosen = packing.first(wanted, int(known[:, 0].amax()))
        if len(chosen) and self._by_policy != {"lengths"}:
            self.tell(f"responses pass the policy once more for {', '.join(sorted(self._by_policy))}: {self._deaf()}.")
        return self._measure.of_some(chosen, self.model, *rows) | {"measured": wanted}

    def _overheard(self, output: dict[str, Any], wanted: Tensor, model: Any, *rows: Any) -> dict[str, Tensor] | None:
        """What the host's own calls of the policy have left, None if they have not."""
        *_, ids, mask, spoken = rows
        heard, self._heard = self._heard, []  # or states would be kept while the model trains
        passed, self._passed = self._passed, None
        if self._generation is not None:
            parts = heard or [(torch.arange(len(ids)), self._generation.take(ids, mask))]
            return self._of_parts(parts, model, *rows)
        seen = (mask == output["completion_mask"].bool()).all(1)  # whole, by the host's pass
        states = self._states_of(passed, output, mask.size(1)) if seen[wanted].all() else None
        if states is None:
            return None
        return self._measure.of_pass(states, head_of(model), ids, mask, spoken) | {"measured": seen}

    def _of_parts(
        self, parts: list[tuple[Tensor, Tapped | None]], model: Any, backbone: Any, *responses: Tensor
    ) -> dict[str, Tensor] | None:
        """What generations of some rows each have left, zeros for rows in none; None if one has left nothing."""
        measured: dict[str, Tensor] = {}
        for rows, tapped in parts:
            if not len(rows):
                continue
            if tapped is None:
                return None
            rows = rows.to(responses[0].device)
            for name, value in self._measure.of_generation(
                tapped, model, backbone, *(x[rows] for x in responses)
            ).items():
                whole = measured.setdefault(name, value.new_zeros(len(responses[0]), *value.shape[1:]))
                whole.index_copy_(0, rows, value)
        if not measured:  # nothing was drawn here: one row says how long vectors are, which all processes gather
            one = torch.zeros(1, dtype=torch.long, device=responses[0].device)
            measured = self._measure.of_some(one, model, backbone, *responses)
        return measured

    def _states_of(self, passed: PassTap | None, output: dict[str, Any], T: int) -> Tensor | None:
        """States of the policy's pass for old log-probabilities, (n, T + 1, D); None if they will not do for ours."""
        if passed is None or "old_per_token_logps" not in output:
            return None
        if self._measure.wants_scores and not (self.has_whole_model and self._has_plain_head()):
            return None
        return passed.take(torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1), T)

    def _deaf(self) -> str:
        """Why the policy's own generation was of no use."""
        reasons = {
            "they come from vLLM": self.use_vllm,
            "the model is sharded": not self.has_whole_model,
            "generation is paged": self._generation is None,
        }
        return next((reason for reason, holds in reasons.items() if holds), "generation was not plain sampling")

    def _make_generation_tap(self) -> GenerationTap | None:
        """Where the model itself generates, whole on each process: there its states come for nothing."""
        paged = ("use_transformers_paged", "use_transformers_continuous_batching")
        if not self.has_whole_model or self.use_vllm or any(getattr(self.args, name, False) for name in paged):
            return None
        model = self.accelerator.unwrap_model(self.model)
        projection = self._measure.projection if self._measure.wants_scores else None
        last = not self._by_policy.isdisjoint({"embeddings", "points"})
        return GenerationTap(causal_of(model), backbone_of(model), projection, self.temperature, last)

    def _has_plain_head(self) -> bool:
        if self._plain_head is None:
            self._plain_head = has_plain_head(self.accelerator.unwrap_model(self.model))
        return self._plain_head
