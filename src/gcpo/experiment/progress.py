"""What a run shows and writes while it trains: the progress bar, the metrics and the recorded groups."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from tqdm import tqdm
from transformers import TrainerCallback

from gcpo.experiment.rundir import RunDirectory
from gcpo.integrations.trl import GCPOTrainer, GroupBatch, TRLTrainer
from gcpo.semantics import plane

# The run directory speaks one language whatever the host calls its metrics.
_RENAMED = {"reward": "reward/mean", "reward_std": "reward/std"}
_GROUPS_A_STEP = 4
_RECORDED_STEPS = 150


def bar(total: int | None = None, over: Iterable[Any] | None = None, initial: int = 0, label: str = "") -> Any:
    """A tqdm bar on standard error; in a log file it moves seldom."""
    seldom = {} if sys.stderr.isatty() else {"mininterval": 10.0, "maxinterval": 30.0}
    return tqdm(over, total=total, initial=initial, desc=label, file=sys.stderr, dynamic_ncols=True, **seldom)


class Metrics(TrainerCallback):
    """Writes ``metrics.jsonl`` and moves the progress bar.

    Args:
        run: Directory of the run.
    """

    shown: ClassVar[dict[str, str]] = {"loss": "loss", "tokens right": "mean_token_accuracy"}
    """What the bar shows, by the names of metrics."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar where the run stands."""
        self._started = time.perf_counter() - self._run.seconds()
        recorded = self._run.lines("groups.jsonl")
        self._recorded: int = recorded[-1]["step"] if recorded else 0
        self._bar = bar(total=state.max_steps, initial=state.global_step, label="train")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """A line a step; the host's closing summary is none."""
        if "loss" not in logs:
            return
        metrics = {_RENAMED.get(name, name): value for name, value in logs.items()} | self.further()
        self._run.append("metrics.jsonl", {"step": state.global_step, "time": self.seconds(), **metrics})
        values = {k: f"{metrics[v]:.2f}" for k, v in self.shown.items() if metrics.get(v) is not None}
        self._bar.set_postfix(values, refresh=False)

    def further(self) -> dict[str, float]:
        """What the line under way has besides the host's metrics."""
        return {}

    def seconds(self) -> float:
        """Training time of the run so far."""
        return round(time.perf_counter() - self._started, 3)

    @contextlib.contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """What is done meanwhile is no training time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - started

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, also of a run that failed."""
        if self._bar is not None:
            self._bar.close()


class Recorder(Metrics):
    """Writes ``groups.jsonl`` too.

    Args:
        run: Directory of the run.
        answers: Gold answer of each prompt.
    """

    shown: ClassVar[dict[str, str]] = {"reward": "reward/mean", "accuracy": "accuracy", "dead": "gcpo/dead_groups"}

    def __init__(self, run: RunDirectory, answers: dict[str, str]) -> None:
        super().__init__(run)
        self._answers = answers
        self._considered: GroupBatch | None = None
        self.trainer: GCPOTrainer | TRLTrainer | None = None

    def further(self) -> dict[str, float]:
        """``generations``, where a line is of several batches of responses: the host logs their means."""
        assert self.trainer is not None
        times = len(self.trainer._metrics["train"]["completions/mean_length"])  # cleared once the callbacks were told
        return {"generations": times} if times > 1 else {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar, and record some groups of a new batch."""
        super().on_step_end(args, state, control)
        assert self.trainer is not None
        batch = self.trainer.last_groups
        if batch is None or batch is self._considered:
            return
        self._considered = batch  # decided upon now: whether a later step still has it depends on where a run resumed
        every = max(1, state.max_steps // _RECORDED_STEPS)
        if state.global_step // every > self._recorded // every:
            self._recorded = state.global_step
            for record in group_records(batch, _GROUPS_A_STEP):
                answer = self._answers.get(record["prompt"])
                self._run.append("groups.jsonl", {"step": state.global_step, "answer": answer, **record})


class Interim(TrainerCallback):
    """Writes ``evaluations.jsonl``: the accuracy after every so many steps but the last, which ``after`` is of.

    Args:
        run: Directory of the run.
        recorder: Whose clock stands still meanwhile.
        every: Steps between evaluations; 0 for none.
        test: The accuracy of the model as it stands.
    """

    def __init__(self, run: RunDirectory, recorder: Metrics, every: int, test: Callable[[], float]) -> None:
        self._run, self._recorder, self._every, self._test = run, recorder, every, test

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate if it is time."""
        if not self._every or state.global_step % self._every or state.global_step >= state.max_steps:
            return
        with self._recorder.off_the_clock():
            accuracy = self._test()
        record = {"step": state.global_step, "time": self._recorder.seconds(), "accuracy": accuracy}
        self._run.append("evaluations.jsonl", record)


class StopAtSignal(TrainerCallback):
    """Ends training after the step under way once ``requested``; the checkpoint of that step is kept."""

    requested = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop and save if asked to."""
        if self.requested:
            control.should_training_stop = control.should_save = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """The first Ctrl-C asks for the end of the step, the second ends at once."""

        def ask(*_: Any) -> None:
            self.requested = True
            signal.signal(signal.SIGINT, before)
            print("\nstopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def group_records(batch: GroupBatch, limit: int) -> Iterator[dict[str, Any]]:
    """The first ``limit`` groups of a batch as plain records for ``groups.jsonl``."""
    outcome, G = batch.outcome, batch.rewards.shape[1]
    maps = plane(batch.inputs["embeddings"][:limit]) if "embeddings" in batch.inputs else None
    for g in range(min(limit, batch.rewards.shape[0])):
        rows = slice(g * G, (g + 1) * G)
        yield {
            "group": g,
            "prompt": batch.prompts[rows.start],
            "completions": batch.completions[rows],
            "rewards": batch.rewards[g].tolist(),
            "advantages": outcome.advantages[g].tolist(),
            "labels": _compact(batch.inputs["labels"][g]) if "labels" in batch.inputs else None,
            "signals": {name: value[g].item() for name, value in batch.signals.items()},
            "weight": outcome.weights[g].item(),
            "variance": None if batch.gradient_variance is None else batch.gradient_variance[g].item(),
            "dead": not outcome.live[g].item(),
            "map": None if maps is None else maps[g].tolist(),
        }


def _compact(labels: torch.Tensor) -> list[int]:
    """Labels 0, 1, 2, ... in order of appearance."""
    order: dict[int, int] = {}
    return [order.setdefault(label, len(order)) for label in labels.tolist()]
