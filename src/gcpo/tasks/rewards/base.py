"""What a reward is, and the weighted sum of several."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from gcpo.semantics.answers import marked_answer
from gcpo.tasks.base import Example

Judge = Callable[[str, Example], float]
"""From a response and its problem to a number."""


class RangeError(ValueError):
    """A reward gave a number outside the range that it states."""


@dataclass(frozen=True)
class Reward:
    """A judge and the range of its judgements.

    Attributes:
        name: As the user wrote it.
        judge: Gives the number.
        low: Least number it gives.
        high: Largest; given to the best response.
        summary: One line for listings.
    """

    name: str
    judge: Judge
    low: float = 0.0
    high: float = 1.0
    summary: str = ""

    def __call__(self, response: str, example: Example) -> float:
        """The reward, in [low, high]; NaN, which takes the response out of its group, passes.

        Raises:
            RangeError: The judge gave anything else.
        """
        value = float(self.judge(response, example))
        slack = 1e-6 * (self.high - self.low)
        if not (math.isnan(value) or self.low - slack <= value <= self.high + slack):
            raise RangeError(
                f"reward {self.name!r} must give numbers in [{self.low:g}, {self.high:g}], found {value}: set its "
                "attribute range to the least and the largest."
            )
        return value

    def score(self, response: str, example: Example) -> float:
        """The reward scaled to [0, 1]; 0 for NaN."""
        value = self(response, example)
        return 0.0 if math.isnan(value) else min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True)
class WeightedSum:
    """Several rewards with weights; what evaluation goes by is the first.

    Attributes:
        parts: Weight and reward, in order.

    Raises:
        ValueError: The sum is the same for all responses, or a weight is not finite.
    """

    parts: tuple[tuple[float, Reward], ...]

    def __post_init__(self) -> None:
        if not all(math.isfinite(w) for w, _ in self.parts) or not self.high > self.low:
            given = ", ".join(f"{w:g}*{r.name}" for w, r in self.parts)
            raise ValueError(f"weights of rewards must be finite and not all 0, found {given}.")

    @property
    def low(self) -> float:
        """Least sum."""
        return sum(min(w * r.low, w * r.high) for w, r in self.parts)

    @property
    def high(self) -> float:
        """Largest sum."""
        return sum(max(w * r.low, w * r.high) for w, r in self.parts)

    def __call__(self, response: str, example: Example) -> float:
        """The sum, in [low, high]."""
        return sum(w * r(response, example) for w, r in self.parts)

    def score(self, response: str, example: Example) -> float:
        """The first reward, scaled to [0, 1]."""
        return self.parts[0][1].score(response, example)


def stated(response: str) -> str:
    """The marked answer of a response; without a mark the whole response is the answer."""
    answer = marked_answer(response)
    return response.strip() if answer is None else answer


def no_argument(name: str, argument: str | None) -> None:
    """Refuse an argument."""
    if argument is not None:
        raise ValueError(f"reward {name!r} takes no argument, found {argument!r}: write {name}.")
