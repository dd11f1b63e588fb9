"""Sampled accuracy on held-out prompts, with intervals over prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from gcpo.experiment.progress import bar
from gcpo.experiment.settings import SFTSettings, TrainSettings
from gcpo.experiment.statistics import interval, wilson
from gcpo.policies.sampling import posed, respond
from gcpo.tasks import Example, Task

__all__ = ["Evaluation", "Examiner", "evaluate", "interval"]

Rates = Float[np.ndarray, " prompts"]


@dataclass(frozen=True)
class Evaluation:
    """How right responses are: the share of right ones where a response is right or wrong.

    Attributes:
        rates: Mean score of the responses to each prompt.
        samples: Responses sampled for each.
    """

    rates: Rates
    samples: int

    @property
    def accuracy(self) -> float:
        """Mean over prompts."""
        return float(self.rates.mean())

    def as_dict(self) -> dict[str, Any]:
        """``accuracy``, its 95 % interval over prompts, and the number of prompts ``n``."""
        ci95 = interval(self.rates) if np.ptp(self.rates) > 0 else wilson(self.accuracy, len(self.rates))
        return {"accuracy": self.accuracy, "ci95": ci95, "n": len(self.rates), "samples": self.samples}


def evaluate(
    model: Any,
    tokenizer: Any,
    task: Task,
    examples: Sequence[Example],
    samples: int,
    seed: int,
    max_new_tokens: int,
    chat: bool = False,
    batch_size: int = 512,
    progress: Any = lambda batches: batches,
) -> Evaluation:
    """Sample responses at temperature 1 and grade them.

    The random state of the caller is left as it was, and the same seed gives the same responses.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer, padding on the left.
        task: Grades the responses.
        examples: Prompts to respond to.
        samples: Responses a prompt.
        seed: Seed of the sampling.
        max_new_tokens: Longest response.
        chat: Pose prompts as a user's turn of the chat template.
        batch_size: Responses sampled at once.
        progress: Wraps the list of batches to show how far it is.
    """
    rows = [example for example in examples for _ in range(samples)]
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    training, grades = model.training, []
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch in progress(batches):
            responses = respond(model, tokenizer, posed(batch, chat), max_new_tokens, chat)
            grades += [task.score(r, e) for r, e in zip(responses, batch, strict=True)]
    model.train(training)
    return Evaluation(np.array(grades).reshape(len(examples), samples).mean(1), samples)


class Examiner:
    """Evaluates what is trained on the same held-out prompts each time.

    Args:
        task: Grades the responses.
        examples: The prompts.
        settings: How many responses to sample, and the seed.
        length: Longest response.
        chat: Pose prompts as a user's turn.
    """

    def __init__(
        self, task: Task, examples: Sequence[Example], settings: SFTSettings | TrainSettings, length: int, chat: bool
    ) -> None:
        self._task, self._examples, self._settings = task, examples, settings
        self._length, self.chat = length, chat

    def __call__(self, model: Any, tokenizer: Any, label: str | None = None) -> Evaluation:
        """The model as it stands, with a progress bar of this label."""
        return evaluate(
            model,
            tokenizer,
            self._task,
            self._examples,
            samples=self._settings.eval_samples,
            seed=self._settings.eval_seed,
            max_new_tokens=self._length,
            chat=self.chat,
            batch_size=512 if model.num_parameters() < 10_000_000 else 32,
            progress=lambda batches: batches if label is None else bar(over=batches, label=label),
        )
