"""What a task is, and what the built-in ones share: drawing problems, splitting them, reading an answer.

A response is lines of working and then one answer line, the only part that is graded:

    37+25=62
    62-18=44
    #44
"""

import hashlib
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Example:
    """One problem.

    Attributes:
        prompt: The problem as it is put to the policy; the only part of what it sees that differs between examples.
        answer: A right final answer; a task may accept others.
        solution: A right response with working, which ends with the answer line.
        references: Further right answers, for questions that can be answered in several ways.
        before: Turns before the prompt, as (role, text): a system prompt, then solved examples.
        row: What else is known of the problem, for rewards that need it.
    """

    prompt: str
    answer: str
    solution: str
    references: tuple[str, ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def answers(self) -> tuple[str, ...]:
        """All right answers that are known."""
        return (self.answer, *self.references)

    def text(self) -> str:
        """What a policy without a chat template sees: the turns before and the prompt, a blank line between them."""
        shown = ""
        for role, said in self.before:
            shown += said + (gap(said) if role == "user" else "\n\n")
        return shown + self.prompt

    def messages(self) -> list[dict[str, str]]:
        """What a chat template takes: the turns before, and the prompt as the user's."""
        return [{"role": role, "content": said} for role, said in (*self.before, ("user", self.prompt))]


def gap(prompt: str) -> str:
    """What stands between a prompt and a response to it where both are plain text."""
    return "" if prompt[-1:].isspace() else " "


class Task(Protocol):
    """A source of problems and the grader of responses to them.

    Attributes:
        name: Key in ``gcpo.tasks.TASKS``.
        summary: One line for listings.
        max_new_tokens: Tokens that the longest gold solution and its end need, one a character.
        reward_low: Smallest grade.
        reward_range: Largest minus smallest grade.
    """

    name: str
    summary: str
    max_new_tokens: int
    reward_low: float
    reward_range: float

    def examples(self, split: Split, n: int, seed: int) -> list[Example]:
        """The first ``n`` problems of a split in the order that ``seed`` shuffles them into.

        The prompts are distinct, and no problem is in both splits, whatever the seeds.

        Raises:
            ValueError: ``n`` is negative or exceeds what exists.
        """
        ...

    def count(self, split: Split) -> int | None:
        """How many problems a split has; None for more than anyone asks for."""
        ...

    def grade(self, response: str, example: Example) -> float:
        """The reward of a response; 1.0 for a right one and 0.0 for any other where nothing else is said."""
        ...

    def score(self, response: str, example: Example) -> float:
        """How right a response is, in [0, 1]: what accuracy is the mean of. The grade where nothing else is said."""
        ...


def final_answer(response: str) -> str | None:
    r"""What stands behind the ``#`` (or ``####``, as GSM8K has it) of the answer line.

    The answer line is the last one that is not blank; with text after it, or without a ``#``, there is no answer.
    Spaces around the answer are dropped, everything else is kept: ``"#44 apples"`` answers ``"44 apples"``.

    >>> final_answer("37+25=62\n62-18=44\n#44\n")
    '44'
    >>> final_answer("#44\nLet me check.") is None
    True
    """
    last_line = response.rstrip().rpartition("\n")[2]
    match = re.fullmatch(r"#+\s*([^#\s].*)", last_line)
    return match[1] if match else None


def split_of(key: str) -> Split:
    """The split of the problem with this canonical key: a fixed fifth of all keys is "test"."""
    digest = hashlib.sha256(key.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % 5 == 0 else "train"


def shuffled(size: int, rng: random.Random) -> Iterator[int]:
    """0 ... size-1 in random order: a Fisher-Yates shuffle that stores only what it has moved."""
    moved: dict[int, int] = {}
    for last in reversed(range(size)):
        index = rng.randint(0, last)
        yield moved.get(index, index)
        moved[index] = moved.pop(last, last)


class NumberedTask(ABC):
    """A task whose problems are numbered 0 ... size-1 and right by one answer.

    Numbers may have no problem, and two numbers may share a prompt; ``examples`` passes over both.
    """

    name: str
    summary: str
    max_new_tokens: int
    reward_low = 0.0
    reward_range = 1.0
    size: int

    @abstractmethod
    def problem(self, number: int) -> Example | None:
        """Problem ``number``, or None where there is none."""

    @abstractmethod
    def key(self, prompt: str) -> str:
        """What two prompts share exactly if they pose the same problem; decides the split."""

    def examples(self, split: Split, n: int, seed: int) -> list[Example]:
        """See ``Task.examples``."""
        if split not in ("train", "test"):
            raise ValueError(f"the split must be 'train' or 'test', found {split!r}.")
        found: dict[str, Example] = {}
        if 0 <= n <= self.size:
            for example in self._all(split, seed):
                if len(found) == n:
                    break
                found.setdefault(example.prompt, example)
        if len(found) != n:
            most = len(found) or self.size
            raise ValueError(f"n must be 0 to {most} for {self.name!r}, split {split!r}, found {n}: ask for fewer.")
        return list(found.values())

    def _all(self, split: Split, seed: int) -> Iterator[Example]:
        rng = random.Random(f"{self.name} {split} {seed}")
        drawn = (self.problem(number) for number in shuffled(self.size, rng))
        return (example for example in drawn if example and split_of(self.key(example.prompt)) == split)

    def count(self, split: Split) -> int | None:
        """None: ``examples`` says when it runs out."""
        return None

    def score(self, response: str, example: Example) -> float:
        """The grade."""
        return self.grade(response, example)

    def grade(self, response: str, example: Example) -> float:
        """1.0 if the final answer is the gold one, letter for letter: ``#044``, ``#+44`` and ``#44.0`` are wrong."""
        return float(final_answer(response) == example.answer)

    def near_misses(self, example: Example) -> list[str]:
        """Damaged gold solutions: no answer, no ``#``, text after it, a malformed answer, and ``wrong_answers``."""
        answer, wrong = example.answer, self.wrong_answers(example)
        working = example.solution.removesuffix(f"#{answer}")
        endings = ["", "#", "####", answer, f"={answer}", f"#={answer}", f"# #{answer}", f"#{answer}#", f"#{answer}="]
        endings += [f"#{answer}\n#", f"#{answer} {answer}", f"#{answer}\nIs that right?", f"#{answer}\n#{wrong[0]}"]
        return ["", *(working + ending for ending in endings + [f"#{other}" for other in wrong])]

    def wrong_answers(self, example: Example) -> list[str]:
        """Numbers close to the gold answer, and other ways to write it."""
        gold = example.answer
        forms = [f"0{gold}", f"+{gold}", f"{gold}.0", f"{gold},0", f"{gold} or {gold}", f"{gold}\u200b"]
        close = [str(int(gold) + step) for step in (1, -1, 10, -10)] + [f"-{gold}", gold[::-1], f"{gold}0"]
        return [other for other in close + forms if other != gold]
