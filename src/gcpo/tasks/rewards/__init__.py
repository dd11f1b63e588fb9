"""What a response gets: rewards by name, several with weights, and a user's own.

    parse(["math", "0.2*format", "-0.1*length:300", "rewards.py:kind"])

A word is ``[WEIGHT*]NAME[:ARGUMENT]`` or ``[WEIGHT*]MODULE_OR_FILE:FUNCTION``. Each reward states its range, the range
of the sum follows, and a reward that leaves its range is an error: reward dispersion is measured against it.
"""

from collections.abc import Callable, Mapping, Sequence

from gcpo.tasks.base import Task
from gcpo.tasks.rewards.answers import choice, exact, math, numeric
from gcpo.tasks.rewards.base import Judge, RangeError, Reward, WeightedSum
from gcpo.tasks.rewards.own import load
from gcpo.tasks.rewards.shape import format_, length
from gcpo.tasks.rewards.similarity import similarity
from gcpo.tasks.rewards.words import rouge_l, token_f1

REWARDS: Mapping[str, Callable[[str | None], Reward]] = {
    "exact": exact,
    "numeric": numeric,
    "math": math,
    "choice": choice,
    "token-f1": token_f1,
    "rouge-l": rouge_l,
    "similarity": similarity,
    "format": format_,
    "length": length,
}
"""How to make each reward from its argument, None for none."""


def parse(words: Sequence[str], task: Task | None = None) -> WeightedSum:
    """The weighted sum that the words name.

    Args:
        words: One a reward; see the module.
        task: Whose own grade the name ``task`` stands for; None: there is no such name.

    Raises:
        ValueError: No word is given, or one names no reward, has a wrong weight or a wrong argument.
    """
    if not words:
        raise ValueError("reward must name at least one reward, found none: leave it out for the task's own.")
    parts = [_weighed(word) for word in words]
    return WeightedSum(tuple((weight, _named(word, task)) for weight, word in parts))


def _weighed(word: str) -> tuple[float, str]:
    weight, star, name = word.partition("*")
    if not star or ":" in weight:  # a regular expression may have a star
        return 1.0, word.strip()
    try:
        return float(weight), name.strip()
    except ValueError:
        raise ValueError(f"the weight of a reward must be a number, found {weight!r} in {word!r}.") from None


def _named(word: str, task: Task | None) -> Reward:
    name, colon, argument = word.partition(":")
    if name == "task" and task is not None:
        return Reward("task", task.grade, 0.0, task.reward_range, "the task's own grade")
    if name in REWARDS:
        return REWARDS[name](argument if colon else None)
    if colon:
        return load(name, argument)
    known = [*REWARDS, *(["task"] if task is not None else [])]
    raise ValueError(f"a reward must be one of {', '.join(known)} or module:function, found {word!r}.")


__all__ = ["REWARDS", "Judge", "RangeError", "Reward", "WeightedSum", "parse"]
