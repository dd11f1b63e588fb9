"""A host's trainer as a command runs it: from the last checkpoint, to its end or to Ctrl-C."""

from pathlib import Path
from typing import Any

from transformers import PrinterCallback
from transformers.trainer_callback import ProgressCallback, TrainerState

from gcpo.experiment.adapters import restore
from gcpo.experiment.progress import Metrics, StopAtSignal
from gcpo.experiment.rundir import RunDirectory


def run_trainer(trainer: Any, model: Any, run: RunDirectory, metrics: Metrics) -> tuple[bool, int]:
    """Train, from the last checkpoint if there is one; returns whether it was interrupted, and the steps done.

    Args:
        trainer: The host's; its own printing is taken out.
        model: What it trains.
        run: Directory of the run.
        metrics: Writes its lines; one of the trainer's callbacks.
    """
    stop = StopAtSignal()
    trainer.add_callback(stop)
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    checkpoint = run.last_checkpoint()
    run.forget_after(int(checkpoint.name.split("-")[-1]) if checkpoint else 0)
    if checkpoint and (steps := _all_done(checkpoint)):
        restore(model, checkpoint)
        return False, steps
    try:
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        stop.requested = True
    finally:
        metrics.close()
    return stop.requested and trainer.state.global_step < trainer.state.max_steps, trainer.state.global_step


def _all_done(checkpoint: Path) -> int:
    """The steps of a run whose last this checkpoint is, else 0; the host would train one step more."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state.global_step if state.global_step >= state.max_steps else 0
