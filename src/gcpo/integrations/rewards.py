"""Reward functions that fail: named, counted, and left out or made to stop the run, as the user says.

A call fails as a whole where the function raises, takes longer than the time limit, returns nothing or other than one
reward a response. A single value fails that is NaN, infinite, no number, or beyond ±1e15, where the squares that
advantages are made of soon leave float32. None is not a failure: TRL's word for a function that has nothing to say.

============ ===============  ===========================================================
``on_error`` a call fails     a value fails
============ ===============  ===========================================================
``strict``   the run stops    the run stops
``stop``     the run stops    the response is left out (the default)
``mask``     no response of   the response is left out
             the call has
             this reward
============ ===============  ===========================================================

A response that is left out counts in nothing, whatever other functions say of it: where a penalty fails, the sum of
the others would be a better total than its group's, and a policy would learn to make it fail. (In a trainer other than
ours it goes without this one reward.) Where a whole call fails, none of its responses gains on the others.

The time limit interrupts the function where it runs, in the main thread, by a signal. A worker thread would go on for
ever, and libraries that set alarms (SIGALRM) of their own, as math-verify does, work in the main thread only. The
signal is SIGVTALRM, sent by a watching thread to a function that waits, and by the system's timer of CPU time to one
that computes and lets no other thread run, such as a regular expression. Code in C that does not look at signals is
interrupted when it returns to Python.
"""

import asyncio
import functools
import inspect
import math
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

ON_ERROR = ("strict", "stop", "mask")
_LARGEST = 1e15
_AGAIN = 0.5  # seconds after which a function that swallowed its interruption is interrupted anew

logger = logging.get_logger(__name__)


class RewardError(RuntimeError):
    """A reward function failed, and was to stop the run."""


class _TimeIsUp(BaseException):
    """Not an ``Exception``, which reward functions are wont to catch."""


def guarded(reward_func: Any, on_error: str = "stop", time_limit: float | None = None) -> Any:
    """A reward function that fails as the module says; reward models, by path or loaded, are left as they are.

    The share of responses that went without a reward because of failures is logged as
    ``gcpo/reward_failures/<function>``, where the trainer has ``log_metric`` (TRL >= 1.0).

    Args:
        reward_func: As TRL takes it: a function, also a partial, a callable object, or an async one.
        on_error: ``strict``, ``stop`` or ``mask``.
        time_limit: Seconds a call may take; None for no limit. An async function is cancelled where it awaits.

    Raises:
        ValueError: No such ``on_error``, or a time limit that is not positive.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}, found {on_error!r}.")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit must be a positive number of seconds or None, found {time_limit!r}.")
    if reward_func is None or isinstance(reward_func, str | nn.Module) or hasattr(reward_func, "_gcpo_guard"):
        return reward_func
    guard = _Guard(_name(reward_func), on_error, time_limit)
    inner = _innermost(reward_func)
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__):

        async def wrapper(*given: Any, **named: Any) -> Sequence[float | None]:
            return guard.judge(await guard.awaited(reward_func(*given, **named)), given, named)

    else:

        def wrapper(*given: Any, **named: Any) -> Any:  # type: ignore[misc]
            return guard.judge(guard.called(lambda: reward_func(*given, **named)), given, named)

    functools.update_wrapper(wrapper, reward_func)
    wrapper.__name__ = guard.name
    wrapper._gcpo_guard = guard  # type: ignore[attr-defined]
    return wrapper


def guard_all(reward_funcs: Any, on_error: str, time_limit: float | None) -> Any:
    """``guarded`` of one or a list of reward functions, as TRL takes them."""
    if isinstance(reward_funcs, list):
        return [guarded(f, on_error, time_limit) for f in reward_funcs]
    return guarded(reward_funcs, on_error, time_limit)


# A mixin calls what its host has; to the type checker it is one.
if TYPE_CHECKING:
    from trl import GRPOTrainer as _Host
else:
    _Host = object


class FailedRewardsMixin(_Host):
    """Leaves responses out at which a guarded reward function failed; mix in before ``GRPOTrainer``."""

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        failed = torch.zeros(len(prompts), dtype=torch.bool)
        for guard in (f._gcpo_guard for f in self.reward_funcs if hasattr(f, "_gcpo_guard")):
            failed[guard.failed] = True
        every = self.accelerator.gather(failed.to(rewards.device))  # as the rewards are
        return rewards.masked_fill(every.unsqueeze(1), torch.nan)


class _Guard:
    """What is done about the failures of one function.

    Attributes:
        failed: Places of the responses with a value that failed in the last call.
    """

    def __init__(self, name: str, on_error: str, time_limit: float | None) -> None:
        self.name, self._on_error, self._limit = name, on_error, time_limit
        self.failed: list[int] = []

    def called(self, call: Callable[[], Any]) -> "list[Any] | _Failure":
        """The values of a call, or why there are none."""
        if self._limit is not None:
            _check_thread()
        try:
            return list(call() if self._limit is None else _interrupted_after(self._limit, call))
        except _TimeIsUp:
            return _Failure(f"took longer than {self._limit:g} s")
        except (Exception, SystemExit) as error:
            return _Failure(_said(error), error)

    async def awaited(self, pending: Awaitable[Any]) -> "list[Any] | _Failure":
        """``called`` for a coroutine."""
        try:
            return list(await asyncio.wait_for(pending, self._limit))
        except (Exception, SystemExit) as error:
            if self._limit is not None and isinstance(error, TimeoutError) and not str(error):
                return _Failure(f"took longer than {self._limit:g} s")
            return _Failure(_said(error), error)

    def judge(
        self, found: "list[Any] | _Failure", given: Sequence[Any], named: dict[str, Any]
    ) -> Sequence[float | None]:
        """One reward a response, None for those that go without; counts and tells failures."""
        n = len(named["completions"] if "completions" in named else given[min(1, len(given) - 1)])
        if isinstance(found, list) and len(found) != n:
            found = _Failure(f"returned {len(found)} rewards for {n} responses")
        if isinstance(found, _Failure):
            self._tell(found, self._on_error != "mask")
            rewards: list[float | None] = [None] * n
            failed, self.failed = n, []
        else:
            rewards = [_number(value) for value in found]
            self.failed = wrong = [i for i, value in enumerate(found) if value is not None and rewards[i] is None]
            failed = len(wrong)
            if wrong:
                what = f"returned {_short(found[wrong[0]])} for response {wrong[0]} of {n}, {failed} such in all"
                self._tell(_Failure(what), self._on_error == "strict")
        if log_metric := named.get("log_metric"):
            log_metric(f"gcpo/reward_failures/{self.name}", failed / max(n, 1))
        return rewards

    def _tell(self, failure: "_Failure", stop: bool) -> None:
        if stop:
            raise RewardError(
                f"the reward function {self.name!r} {failure.what}: mend it, or leave such rewards out of the run "
                "with gcpo_reward_errors='mask'."
            ) from failure.cause
        logger.warning(f"the reward function {self.name!r} {failure.what}; what it failed at is left out")


@dataclass(frozen=True)
class _Failure:
    what: str
    cause: BaseException | None = None


def _check_thread() -> None:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_kill"):
        raise RuntimeError(
            "a time limit for reward functions needs the main thread of a POSIX system, which this is not: leave "
            "gcpo_reward_time_limit out."
        )


def _interrupted_after(seconds: float, call: Callable[[], Any]) -> Any:
    """What ``call`` returns; raises ``_TimeIsUp`` in it when its time is up."""
    done, main = threading.Event(), threading.main_thread().ident or 0
    end = time.monotonic() + seconds

    def interrupt(*_: Any) -> None:
        if not done.is_set() and time.monotonic() >= end:  # several threads use up CPU time faster than time goes by
            raise _TimeIsUp

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            signal.pthread_kill(main, signal.SIGVTALRM)
            wait = _AGAIN

    before = signal.signal(signal.SIGVTALRM, interrupt)
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, _AGAIN)
    try:
        return list(call())
    finally:
        try:
            done.set()
        finally:  # also if time is up at this very moment
            done.set()
            watching.join()
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)


def _number(value: Any) -> float | None:
    """A reward as a float, None for one that is none or no number to compute with."""
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) and abs(number) <= _LARGEST else None


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name(function: Any) -> str:
    inner = _innermost(function)
    return getattr(inner, "__name__", type(inner).__name__)


def _said(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"raised {type(error).__name__}{': ' * bool(first)}{first}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
