"""A user's own reward: ``module:function`` or ``file.py:function``, which is imported and so run.

def brief(response: str, example: Example) -> float:
    return -len(response) / 100

brief.range = (-10, 0)  # [0, 1] if nothing is said
"""

import importlib
import importlib.util
import inspect
import math
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from gcpo.tasks.rewards.base import Reward


def load(module: str, function: str) -> Reward:
    """The function as a reward.

    Raises:
        ValueError: It cannot be imported, is no function, or states no range.
    """
    name = f"{module}:{function}"
    try:
        found = getattr(_module(module), function)
    except Exception as error:  # running a user's file may raise anything
        raise ValueError(f"the reward {name!r} cannot be loaded: {type(error).__name__}: {error}.") from error
    if not callable(found):
        raise ValueError(
            f"the reward {name!r} must be a function of response and example, found {type(found).__name__}."
        )
    try:
        inspect.signature(found).bind("response", "example")
    except TypeError as error:
        raise ValueError(f"the reward {name!r} must be a function of response and example: {error}.") from error
    try:
        low, high = map(float, getattr(found, "range", (0.0, 1.0)))
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"the range of reward {name!r} must be its least and largest number, found {found.range!r}.")
    # Training asks for the grade and the score of a response, one after the other; it may be dear to find out twice.
    judge = lru_cache(maxsize=1)(found)
    summary = (found.__doc__ or "").strip().partition("\n")[0]
    return Reward(name, judge, low, high, summary)


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    spec = importlib.util.spec_from_file_location(f"gcpo_reward_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in annotations
    spec.loader.exec_module(module)
    return module
