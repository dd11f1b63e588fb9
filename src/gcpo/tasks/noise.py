"""A task whose rewards are wrong now and then, as those of a fallible verifier are.

    r' = 1 - r   with probability p, independently for each problem and response
    r' = r       else

So the expected reward is (1 - 2 p) r + p: up to p = 1/2 a response that is more often right is still rewarded more
often. Whether a verdict is flipped hangs on the seed, the prompt and the text of the response alone: the same response
is judged the same way again, whoever asks and in which order. For p = 0 nothing is flipped, for p = 1 everything.
"""

import random
from typing import Any

from gcpo.tasks.base import Example, Task


class Noisy:
    """The problems of a task, with rewards of 0 and 1 that are flipped now and then; ``score`` stays clean.

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
        """The reward, flipped or not.

        Raises:
            ValueError: The task's reward is neither 0 nor 1.
        """
        grade = self._task.grade(response, example)
        if grade not in (0.0, 1.0):
            raise ValueError(
                f"reward_noise flips rewards of 0 and 1, but {self._task.name} gave {grade:g}: leave it out, or "
                "choose a reward that is right or wrong."
            )
        drawn = random.Random(f"{self._seed}\0{example.prompt}\0{response}").random()
        return 1.0 - grade if drawn < self._share else grade
