"""Tasks of reasoning-gym (https://github.com/open-thought/reasoning-gym), scored by reasoning-gym itself.

    gcpo train --task reasoning-gym/chain_sum task_settings='{min_terms: 2, max_terms: 2}'

Its data sets give some credit for wrong answers (0.01 or 0.05) and part of it for near ones; only a score of at least
``RIGHT`` counts here, as 1: otherwise reward dispersion would see a signal where there is none.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from gcpo.semantics.answers import extract_answer, marked_answer
from gcpo.tasks.base import Example, Split, split_of
from gcpo.tasks.fields import fill

PREFIX = "reasoning-gym/"
RIGHT = 0.99
_TRIES = 20
# reasoning-gym seeds problem i with seed + i, so that neighbouring seeds would share nearly all problems.
_STRIDE = 1_000_003


class ReasoningGym:
    """One of its data sets; a fixed fifth of all prompts is "test".

    Args:
        name: Of the data set, as ``chain_sum``.
        settings: Fields of its configuration, as ``{"min_terms": 2}``.
        template: Wording of the prompt, with ``{prompt}`` for the question; None: the question alone.
        max_new_tokens: Longest response.

    Raises:
        ImportError: reasoning-gym is not installed.
        ValueError: There is no such data set, or it does not take these settings.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any] | None = None,
        template: str | None = None,
        max_new_tokens: int = 128,
    ) -> None:
        self.name = PREFIX + name
        self.summary = f"{name} of reasoning-gym"
        self.max_new_tokens = max_new_tokens
        self.reward_low, self.reward_range = 0.0, 1.0
        self._dataset, self._settings, self._template = name, dict(settings or {}), template or "{prompt}"
        reserved = sorted({"size", "seed"} & set(self._settings))
        if reserved:
            raise ValueError(f"{reserved[0]} of {self.name} is set by the run: leave it out of task_settings.")
        self._grader = self._create(0)
        probe = self._grader[0]
        if not self._right(str(probe["answer"]), probe):
            raise ValueError(
                f"{self.name} does not accept its own answer {probe['answer']!r} as text, so no response could be "
                "right: choose another of its data sets."
            )

    def _create(self, seed: int) -> Any:
        try:
            import reasoning_gym
        except ImportError as error:
            raise ImportError(
                f'the task {self.name!r} needs reasoning-gym ({error}): install it with pip install "gcpo[gym]".'
            ) from error
        try:
            return reasoning_gym.create_dataset(self._dataset, size=2**62, seed=seed * _STRIDE, **self._settings)
        except (ValueError, TypeError, AssertionError) as error:  # what its registry, dataclasses and checks raise
            raise ValueError(f"reasoning-gym refuses {self._dataset!r} with {self._settings}: {error}.") from error

    def count(self, split: Split) -> int | None:
        """None: problems are made as they are asked for."""
        return None

    def examples(self, split: Split, n: int, seed: int) -> list[Example]:
        """``n`` problems with distinct prompts; ValueError if ``_TRIES`` times as many draws do not hold them."""
        drawn, found = self._create(seed), dict[str, Example]()
        for i in range(_TRIES * (n + 50)):
            if len(found) >= n:
                break
            entry = drawn[i]
            if split_of(entry["question"]) == split:
                found.setdefault(entry["question"], self._example(entry))
        if len(found) < n:
            raise ValueError(
                f"{self.name} has too few problems for split {split!r}, {n} were asked for and {len(found)} found: "
                "ask for fewer, or widen task_settings."
            )
        return list(itertools.islice(found.values(), n))

    def grade(self, response: str, example: Example) -> float:
        """1.0 for a right response and 0.0 for any other."""
        return float(self._right(_answer(response, example.answer), example.row))

    def score(self, response: str, example: Example) -> float:
        """The grade."""
        return self.grade(response, example)

    def _right(self, answer: str | None, entry: Any) -> bool:
        if answer is None:
            return False
        try:
            return float(self._grader.score_answer(answer, entry)) >= RIGHT
        # Some graders (prime_factorization) raise on an answer they cannot read: it is wrong. That they accept right
        # ones is made sure of when the task is built.
        except Exception:
            return False

    def _example(self, entry: Mapping[str, Any]) -> Example:
        answer = str(entry["answer"])
        prompt = fill(self._template, {"prompt": entry["question"]})
        return Example(prompt, answer, f"<answer>{answer}</answer>", row=entry)


def _answer(response: str, gold: str) -> str | None:
    """The marked answer; without a mark the last number where the right answer is one, else the last line."""
    marked = marked_answer(response)
    if marked is not None:
        return marked
    if extract_answer(gold) == gold:
        return extract_answer(response)
    return response.rstrip().rpartition("\n")[2].strip() or None
