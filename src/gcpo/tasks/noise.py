"""A task whose rewards are wrong now and then, as those of a fallible verifier are.

    r' = low + high - r   with probability p, independently for each problem and response: right and wrong are swapped
    r' = r                else

So the expected reward is (1 - 2 p) r + p (low + high): up to p = 1/2 a response that deserves more is still rewarded
more. Whether a verdict is flipped hangs on the seed, the prompt and the text of the response alone: the same response
is judged the same way again, whoever asks and in which order. For p = 0 nothing is flipped, for p = 1 everything; a
reward of the middle stays, and so does NaN.
"""

import random
from typing import Any

from gcpo.tasks.base import Example, Task


class Noisy:
    """The problems of a task, with rewards that are mirrored in their range now and then; ``score`` stays clean.

    Args:
        task: Where the problems come from.
        share: Probability of a flip.
        seed: Decides which are flipped.
    """

    def __init__(self, task: Task, share: float, seed: int) -> None:
        self._task, self._share, self._seed = task, share, seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def grade(self, response: str, example: Example) -> float:
        """The reward, flipped or not."""
        grade = self._task.grade(response, example)
        drawn = random.Random(f"{self._seed}\0{example.prompt}\0{response}").random()
        return 2 * self._task.reward_low + self._task.reward_range - grade if drawn < self._share else grade
