"""A task posed in another way: a system prompt and solved examples before each prompt, other rewards."""

from dataclasses import replace

from gcpo.tasks.base import Example, Split, Task
from gcpo.tasks.rewards import WeightedSum


class Posed:
    """The problems of a task, with what stands before them and what a response to them gets.

    Args:
        task: Where the problems come from.
        reward: What a response gets; None: the task's own.
        system: System prompt; None for none.
        few_shot: Problems shown solved. They are of the train split, and no example is one of them.
        seed: Decides which they are.

    Raises:
        ValueError: The task has too few problems to show so many.
    """

    def __init__(
        self,
        task: Task,
        reward: WeightedSum | None = None,
        system: str | None = None,
        few_shot: int = 0,
        seed: int = 0,
    ) -> None:
        self._task, self._reward = task, reward
        self.name, self.summary, self.max_new_tokens = task.name, task.summary, task.max_new_tokens
        self.reward_low = task.reward_low if reward is None else reward.low
        self.reward_range = task.reward_range if reward is None else reward.high - reward.low
        shots = task.examples("train", few_shot, seed)
        self._shown = {shot.prompt for shot in shots}
        solved = [turn for e in shots for turn in (("user", e.prompt), ("assistant", e.solution))]
        self._before = (*([("system", system)] if system else []), *solved)

    def count(self, split: Split) -> int | None:
        """How many problems a split has, without those shown; None for more than anyone asks for."""
        n = self._task.count(split)
        return n if n is None or split == "test" else n - len(self._shown)

    def examples(self, split: Split, n: int, seed: int) -> list[Example]:
        """The task's own, without those shown."""
        spare = len(self._shown) if split == "train" else 0
        drawn = self._task.examples(split, n + spare, seed)
        kept = [replace(e, before=self._before) for e in drawn if split == "test" or e.prompt not in self._shown]
        return kept[:n]

    def grade(self, response: str, example: Example) -> float:
        """The reward of the response."""
        return self._task.grade(response, example) if self._reward is None else self._reward(response, example)

    def score(self, response: str, example: Example) -> float:
        """How right the response is, in [0, 1]: by the task, or by the first of the rewards."""
        score = self._task.score if self._reward is None else self._reward.score
        return score(response, example)
