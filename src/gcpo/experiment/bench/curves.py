"""What a finished cell says: accuracy on the held-out prompts against what it cost to get there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gcpo.report.reading import Record, document, rows

COSTS = ("steps", "samples", "tokens", "seconds")


@dataclass(frozen=True)
class Curve:
    """Accuracy after T evaluations, the first before training and the last after it.

    Attributes:
        accuracy: Of the policy as it then stands.
        cost: Steps, responses sampled, tokens of responses, and seconds of training spent by then.
    """

    accuracy: Float[np.ndarray, " T"]
    cost: dict[str, Float[np.ndarray, " T"]]

    @property
    def final(self) -> float:
        """Accuracy after training."""
        return float(self.accuracy[-1])

    @property
    def area(self) -> float:
        """Area under the accuracy against steps, over the number of steps: the mean accuracy on the way."""
        steps = self.cost["steps"]
        return float(np.trapezoid(self.accuracy, steps) / steps[-1])


def read(run: Path) -> Curve | None:
    """The curve of a run directory; None if it is not finished."""
    notes: list[str] = []
    summary = document(run / "summary.json", notes)
    if summary.get("status") != "finished" or "report" not in summary:
        return None
    metrics, between = (rows(run / name, notes) for name in ("metrics.jsonl", "evaluations.jsonl"))
    steps = [0, *(e["step"] for e in between), summary["steps"]]
    accuracy = [summary["before"], *between, summary["after"]]
    seconds = [0.0, *(e["time"] for e in between), summary["seconds"]]
    return Curve(
        np.array([a["accuracy"] for a in accuracy]),
        {"steps": np.array(steps, float), "seconds": np.array(seconds, float)}
        | _generated(metrics, summary["responses"], steps),
    )


def _generated(metrics: list[Record], responses: int, steps: Sequence[int]) -> dict[str, Float[np.ndarray, " T"]]:
    """Responses sampled and their tokens up to each of the steps: a step that generates says how long they were."""
    drawn = {m["step"]: _drawn(m, responses) for m in metrics if "completions/mean_length" in m}
    until = [np.array([counts for step, counts in drawn.items() if step <= s]).reshape(-1, 2).sum(0) for s in steps]
    return {name: np.array([counts[i] for counts in until], float) for i, name in enumerate(("samples", "tokens"))}


def _drawn(row: Record, responses: int) -> tuple[float, float]:
    """Responses and tokens of a step's generations; one in parts draws other responses than a batch has."""
    times = row.get("generations", 1)  # the host logs their means
    for parts in ("gcpo/first_draws", "gcpo/dynamic"):
        if f"{parts}/tokens" in row:
            return times * row[f"{parts}/responses"], times * row[f"{parts}/tokens"]
    return times * responses, times * responses * row["completions/mean_length"]
