"""A training step on TRL that leaves out what cannot train and catches what each response adds to the gradient.

Per micro-batch, around TRL's own loss: rows and columns that change nothing are left out (``packing``), and the shares
of the gradient are caught as the backward pass comes by (``probe.live``). Where leaving out would change the update it
is off, and says why.
"""

import logging
import time
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from trl import GRPOTrainer

from gcpo.integrations import packing
from gcpo.integrations.steering import unchanged
from gcpo.probe.live import GradientTap
from gcpo.semantics.policy import ignores_padding

_LOGGER = logging.getLogger(__name__)
_ROW = "gcpo_row"
"""Where each row of the generation batch went when TRL shuffled and split it."""

# A mixin calls what its host has; to the type checker it is one.
_Host = GRPOTrainer if TYPE_CHECKING else object


class PackedStepMixin(_Host):  # type: ignore[misc,valid-type]
    """Wraps ``_prepare_inputs``, ``_compute_loss`` and ``training_step``; mix in before ``GRPOTrainer``."""

    _buffered_inputs: Any

    def begin_steps(self, pack: bool, watch: bool) -> None:
        """Once, when the trainer is built.

        Args:
            pack: Leave out what cannot train.
            watch: Catch the gradient.
        """
        self._packing = pack
        self._told: set[str] = set()
        self._trims_left: bool | None = None
        self._rows: Int[Tensor, " n"] | None = None  # of the micro-batch under way, those that are passed
        self._shares: Float[Tensor, "N F"] | None = None
        self._under_way = False
        self._seconds = 0.0  # spent on the generation batch under way
        self._tap = self._make_tap() if watch else None

    def begin_pass(self, output: dict[str, Any]) -> None:
        """Mark the rows of a new generation batch; when all were trained on, ``end_pass`` is called."""
        n, device = output["advantages"].size(0), output["advantages"].device
        output[_ROW] = torch.arange(n, device=device)
        self._under_way, self._seconds = True, 0.0
        self._shares = None if self._tap is None else self._tap.table(n)

    def end_pass(self, shares: Float[Tensor, "N F"] | None, watching_s: float, whole_s: float) -> None:
        """Every response has been trained on once.

        Args:
            shares: What each of this process's responses added to the gradient; None if not watched.
            watching_s: Seconds that watching took.
            whole_s: Seconds of generating, scoring and training.
        """

    def step_state(self) -> dict[str, Any]:
        """Of a generation batch that is not trained on to the end, for a checkpoint."""
        return {"under_way": self._under_way, "shares": self._shares, "seconds": self._seconds}

    def take_step_state(self, state: dict[str, Any]) -> None:
        """Take back what ``step_state`` gave."""
        self._under_way, self._shares, self._seconds = state["under_way"], state["shares"], state["seconds"]

    def tell(self, sentence: str) -> None:
        """A warning of the main process, once."""
        if sentence not in self._told and self.accelerator.is_main_process:
            _LOGGER.warning(sentence)
        self._told.add(sentence)

    def training_step(self, model: Any, inputs: Any, *rest: Any, **kwargs: Any) -> Tensor:
        """TRL's, with the gradient watched."""
        loss: Tensor
        started = time.perf_counter()
        if self._tap is None:
            loss = super().training_step(model, inputs, *rest, **kwargs)
        else:
            self._rows = None
            with self._tap.watching():
                loss = super().training_step(model, inputs, *rest, **kwargs)
            self._keep_gradients(self._tap)
        self._seconds += time.perf_counter() - started
        if self._under_way and self._step % self.args.steps_per_generation == 0:
            shares, self._shares, self._under_way = self._shares, None, False
            self.end_pass(shares, 0.0 if self._tap is None else self._tap.spent(), self._seconds)
        return loss

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._buffered_inputs
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is before or not self._packs() or _has_images(inputs) or not self._may_reorder():
            return inputs
        steps = self.args.steps_per_generation
        size = min(steps, self.args.gradient_accumulation_steps)
        parts = [self._buffered_inputs[i : i + size] for i in range(0, steps, size)]
        self._buffered_inputs = [batch for part in parts for batch in packing.window(part)]
        first: dict[str, Any] = self._buffered_inputs[self._step % steps]
        return first

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor
        if _ROW not in inputs:
            loss = super()._compute_loss(model, inputs)
            return loss
        whole = {name: value for name, value in inputs.items() if name != _ROW}
        active = packing.active(whole) if self._packs() else None
        n = None if active is None else self._rows_of_all(active, _has_images(whole))
        if active is None or n is None:
            self._pass(inputs[_ROW])
            loss = super()._compute_loss(model, whole)
            return loss
        self._metrics["train"]["gcpo/rows_left_out"].append(1 - n / len(active))
        if n == 0:
            return self._placeholder_loss(model, whole)
        rows, kept = inputs[_ROW], whole
        if n < len(active):
            chosen = packing.first(active, n)
            rows, kept = rows[chosen], packing.take(whole, chosen)
        self._pass(rows)
        loss = super()._compute_loss(model, packing.trim(kept, left=self._may_trim_left(model)))
        return loss * packing.compensation(self.loss_type, kept, whole)

    def _placeholder_loss(self, model: Any, whole: dict[str, Any]) -> Tensor:
        """Zero, from a call of the model that keeps processes in step; what TRL logs of it is no one's."""
        self._pass(torch.zeros(0, dtype=torch.long))
        with unchanged(self._metrics["train"]):
            loss: Tensor = super()._compute_loss(model, packing.placeholder(whole))
        return loss

    def _rows_of_all(self, active: Bool[Tensor, " n"], images: bool) -> int | None:
        """Rows to pass, as many on every process; None where one of them has images, whose responses are not cut."""
        mine = torch.stack([active.sum(), torch.full_like(active.sum(), images)])
        most, some_images = self.accelerator.gather(mine.unsqueeze(0)).amax(0).tolist()
        if some_images:
            self.tell("gcpo_pack is off: responses to images are not cut.")
        return None if some_images else int(most)

    def _packs(self) -> bool:
        """Whether dropping rows and padding leaves the update as it is; where not, says why, once."""
        reasons = {
            "a KL penalty (beta > 0) acts on every response": self.beta != 0.0,
            "the entropy bonus acts on every response": getattr(self, "_entropy_bonus_enabled", False),
            "top_entropy_quantile compares the tokens of all responses": self.top_entropy_quantile < 1.0,
            "the router's auxiliary loss acts on every response": getattr(self, "aux_loss_enabled", False),
            "loss_type='luspo' by token is a mean over padding too, before TRL 1.10": self.loss_type == "luspo"
            and self.importance_sampling_level != "sequence",
            f"the normaliser of loss_type={self.loss_type!r} is not known": self.loss_type not in packing.LOSS_TYPES,
            "the trainer has a loss of its own": super()._compute_loss.__func__ is not GRPOTrainer._compute_loss,
        }
        if not self._packing:
            return False
        for reason in (reason for reason, holds in reasons.items() if holds):
            self.tell(f"gcpo_pack is off: {reason}.")
            return False
        return True

    def _may_reorder(self) -> bool:
        """Whether the micro-batches that one optimizer step adds up are known, and weigh the same there."""
        steps, size = self.args.steps_per_generation, self.args.gradient_accumulation_steps
        whole = max(size, steps) % min(size, steps) == 0 and self._step == self.state.global_step * size
        return whole and size == self.current_gradient_accumulation_steps and self.loss_type not in packing.BY_TOKENS

    @property
    def has_whole_model(self) -> bool:
        """Whether each process has the whole model."""
        return self.accelerator.distributed_type in ("NO", "MULTI_CPU", "MULTI_GPU")

    def _may_trim_left(self, model: Any) -> bool:
        if self._trims_left is None:
            # Without accelerate's autocast, whose rounding would pass for a difference, where it can be.
            own = vars(self.accelerator.unwrap_model(model)).get("_original_forward")
            self._trims_left = ignores_padding(model, own if self.has_whole_model else None)
            if not self._trims_left:
                self.tell("gcpo_pack leaves padding on the left of prompts: the model's logits change with it.")
        return self._trims_left

    def _make_tap(self) -> GradientTap | None:
        try:
            # FSDP and DeepSpeed move the model to its device only when training begins.
            return GradientTap(self.accelerator.unwrap_model(self.model), self.accelerator.device)
        except ValueError as error:
            self.tell(f"gcpo_watch_gradients is off: {error}")
            return None

    def _pass(self, rows: Int[Tensor, " n"]) -> None:
        """These rows are passed next."""
        self._rows = rows
        if self._tap is not None:
            self._tap.begin(len(rows))

    def _keep_gradients(self, tap: GradientTap) -> None:
        """The micro-batch's shares of the gradient, into the table of the generation batch."""
        if self._under_way and self._rows is None:
            self.tell("gcpo_watch_gradients is off: the host does not compute its loss where it is watched.")
            self._tap = self._shares = None
        if self._shares is None or self._rows is None or not len(self._rows):
            return
        scaler = self.accelerator.scaler
        rows = self.current_gradient_accumulation_steps * self.args.per_device_train_batch_size
        self._shares[self._rows] = tap.caught * (rows / (scaler.get_scale() if scaler else 1.0))


def _has_images(inputs: dict[str, Any]) -> bool:
    return "pixel_values" in inputs or "num_images" in inputs
