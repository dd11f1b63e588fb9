"""Checkpoints from which a run goes on bit for bit, and how to tell a whole one.

What TRL 1.16 and transformers 5.23 leave out of a checkpoint, kept in ``gcpo_state_<rank>.pt``:

    the generation batch in use and the count of micro-steps    a checkpoint may fall between two uses of a batch
    metrics, loss and completions since the last log            ``logging_steps`` > 1
    a synced reference model                                    ``sync_ref_model``
    the adaptive entropy coefficient                            TRL writes it after older checkpoints are deleted
    the order of data after the first epoch                     nothing is kept: the sampler is wound forward

``gcpo_files.json`` lists the files of a checkpoint with their sizes. It is written when all of them are, but for
``trainer_state.json``, the host's last, which is whole if it parses. So what was cut short, while it was written or
while it was deleted, is told from what is whole. Of a killed process the system keeps all it had written; of a power
cut we promise nothing.

Bit for bit holds on a CPU with transformers' own generation; vLLM, tools and environments have states of their own.
"""

import json
import numbers
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging

FILES = "gcpo_files.json"
_STATE = "gcpo_state_{}.pt"
_LAST = "trainer_state.json"  # what the host writes last
_ENTROPY = ("entropy_coef", "_last_world_entropy")

logger = logging.get_logger(__name__)


class CheckpointError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


def flaw(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint in a few words; None if it is whole."""
    try:
        sizes = json.loads((checkpoint / FILES).read_text())
        json.loads((checkpoint / _LAST).read_text())
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except ValueError:
        return f"{FILES} or {_LAST} breaks off"
    for name, size in sizes.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes of {size}"
    return None


def last_checkpoint(directory: Path | str, tell: Callable[[str], None] | None = None) -> Path | None:
    """The newest whole checkpoint of a trainer's ``output_dir``, for ``train(resume_from_checkpoint=...)``.

    Args:
        directory: Where ``checkpoint-<step>`` are; need not exist.
        tell: Takes a sentence for each newer checkpoint that is left out; standard error by default.
    """
    tell = tell or (lambda sentence: print(sentence, file=sys.stderr))
    found = {int(p.name.rpartition("-")[2]): p for p in Path(directory).glob("checkpoint-*[0-9]") if p.is_dir()}
    for step in sorted(found, reverse=True):
        wrong = flaw(found[step])
        if wrong is None:
            return found[step]
        tell(f"{found[step]} is not whole ({wrong}) and is left out")
    return None


# A mixin calls what its host has; to the type checker it is one.
if TYPE_CHECKING:
    from trl import GRPOTrainer as _Host
else:
    _Host = object


class WholeCheckpointMixin(_Host):
    """Marks checkpoints that are whole, and says in a sentence that one cannot be written; for any host's trainer."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        directory = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            if self.args.should_save:
                (directory / FILES).unlink(missing_ok=True)  # of an earlier attempt at this step
            super()._save_checkpoint(model, trial)
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint of step {self.state.global_step} could not be written to {directory} "
                f"({_sentence(error)}; {_room(directory)} MiB free): make room or make it writable, then resume from "
                "the checkpoint before."
            ) from error

    def _save_rng_state(self, output_dir: str) -> None:
        # The last thing the host writes before its own state, and before it deletes older checkpoints.
        super()._save_rng_state(output_dir)
        self._save_left_out(Path(output_dir))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            _list_files(Path(output_dir))

    def _save_left_out(self, directory: Path) -> None:
        """Write what the host does not."""


class ExactResumeMixin(WholeCheckpointMixin):
    """Makes a run resumed from a checkpoint the run it would have been; mix in before ``GRPOTrainer``."""

    def own_state(self) -> dict[str, Any]:
        """What a subclass wants kept in checkpoints: numbers, texts, tensors, and lists and dicts of them."""
        return {}

    def take_own_state(self, state: dict[str, Any]) -> None:
        """Take back what ``own_state`` gave."""

    def _get_train_sampler(self, *dataset: Any, **given: Any) -> Any:
        self._train_sampler = super()._get_train_sampler(*dataset, **given)
        return self._train_sampler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        # The sampler shuffles anew whenever an epoch begins, from a random state that no checkpoint has.
        if checkpoint is not None and getattr(self, "_train_sampler", None) is not None:
            # From the file: transformers before 5 takes up the state only later.
            state = json.loads((Path(checkpoint) / _LAST).read_text())
            for _ in range(int(state["epoch"] or 0)):
                next(iter(self._train_sampler), None)

    def _save_left_out(self, directory: Path) -> None:
        torch.save(_plain(_left_out(self)), directory / _STATE.format(self.args.process_index))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is None:
            return
        file = Path(checkpoint) / _STATE.format(self.args.process_index)
        device = "cpu" if self.args.device.type == "cpu" else self.args.device  # torch cannot load to "cpu:0"
        state = torch.load(file, map_location=device, weights_only=True) if file.is_file() else None
        fits = -1 if state is None else int(state.get("layout") == _layout(self))
        # The least of all processes decides, or some would generate while others train.
        fits = int(self.accelerator.gather(torch.tensor([fits], device=self.args.device)).amin())
        if fits < 1:
            what = "was written by other processes or for other batches" if fits == 0 else "lacks a gcpo_state file"
            logger.warning(f"{checkpoint} {what}: the run goes on from it, but with a new batch and not bit for bit.")
        if state is not None and fits >= 0:
            _put_back(self, state if fits else state | {"step": 0, "buffer": None, "own": None})


def _left_out(trainer: Any) -> dict[str, Any]:
    """What the host does not save."""
    every = trainer.args.steps_per_generation * trainer.num_iterations
    ref = getattr(trainer, "ref_model", None) if trainer.args.sync_ref_model else None
    return {
        "layout": _layout(trainer),
        "step": trainer._step,
        "buffer": trainer._buffered_inputs if trainer._step % every else None,
        "metrics": trainer._metrics,
        "logs": {name: rows for name, rows in trainer._logs.items() if name != "images"},
        "loss": getattr(trainer, "_tr_loss", None),  # before transformers 5 it is a variable of the loop
        "logged": trainer._globalstep_last_logged,
        "entropy": {name: getattr(trainer, name) for name in _ENTROPY if hasattr(trainer, name)},
        "ref_model": None if ref is None else trainer.accelerator.unwrap_model(ref).state_dict(),
        "own": trainer.own_state(),
    }


def _layout(trainer: Any) -> list[int]:
    """What a generation batch and the count of micro-steps mean something for."""
    args = trainer.args
    sizes = (args.per_device_train_batch_size, trainer.num_generations, args.steps_per_generation)
    return [args.world_size, *sizes, trainer.num_iterations]


def _put_back(trainer: Any, state: dict[str, Any]) -> None:
    trainer._step, trainer._buffered_inputs = state["step"], state["buffer"]
    for mode, values in state["metrics"].items():
        trainer._metrics[mode].update(values)
    for name, rows in state["logs"].items():
        if isinstance(rows, dict):
            for column, values in rows.items():
                trainer._logs[name][column].extend(values)
        else:
            trainer._logs[name].extend(rows)
    if state["loss"] is not None and hasattr(trainer, "_tr_loss"):
        trainer._tr_loss += state["loss"]
        trainer._globalstep_last_logged = state["logged"]
    for name, value in state["entropy"].items():
        setattr(trainer, name, value)
    if state["ref_model"] is not None:
        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(state["ref_model"])
    if state["own"] is not None:
        trainer.take_own_state(state["own"])


def _plain(value: Any) -> Any:
    """``value`` in types that ``torch.load(weights_only=True)`` takes; of anything else, its text."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Real):  # numpy's, too
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_plain(item) for item in value]
    return str(value)


def _list_files(checkpoint: Path) -> None:
    """Write the list of files, whole or not at all."""
    sizes = {str(f.relative_to(checkpoint)): f.stat().st_size for f in sorted(checkpoint.rglob("*")) if f.is_file()}
    for name in (_LAST, FILES, f".{FILES}"):  # written later, or left by an earlier attempt at this step
        sizes.pop(name, None)
    (checkpoint / f".{FILES}").write_text(json.dumps(sizes, indent=1))
    os.replace(checkpoint / f".{FILES}", checkpoint / FILES)


def _room(directory: Path) -> int:
    """MiB free where a directory is, or was to be."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free >> 20


def _sentence(error: Exception) -> str:
    """The first line of an error, or its kind if it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
