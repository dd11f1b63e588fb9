"""Reward functions that fail in every way there is: named, counted, left out or made to stop the run."""

import asyncio
import contextlib
import functools
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from gcpo import GCPOConfig, GCPOTrainer
from gcpo.integrations import rewards
from gcpo.integrations.rewards import RewardError, guarded
from tests import tiny
from tests.integrations.test_trl import SETTINGS, logged, parameters, untrained

N = 4
GIVEN = {"prompts": ["p"] * N, "completions": ["a", "b", "c", "d"]}


@pytest.fixture
def told(monkeypatch):
    sentences = []
    monkeypatch.setattr(rewards.logger, "warning", sentences.append)
    return sentences


def raising(completions, **_):
    raise KeyError("gold")


def exiting(completions, **_):
    sys.exit(3)


def hanging(completions, **_):
    time.sleep(60)


def spinning(completions, **_):
    while True:
        pass


def stubborn(completions, **_):
    """Catches whatever it can, as graders do."""
    while True:
        with contextlib.suppress(Exception):
            time.sleep(60)


def backtracking(completions, **_):
    return [float(bool(re.match(r"(a+)+$", "a" * 60 + "b"))) for _ in completions]


def waiting(completions, **_):
    return [subprocess.run(["sleep", "60"], check=False).returncode for _ in completions]


CALLS = [
    (raising, "raised KeyError: 'gold'"),
    (exiting, "raised SystemExit: 3"),
    (lambda completions, **_: None, "raised TypeError: 'NoneType' object is not iterable"),
    (lambda completions, **_: [1.0], "returned 1 rewards for 4 responses"),
    (lambda completions, **_: 0.5, "raised TypeError: 'float' object is not iterable"),
    (hanging, "took longer than 0.2 s"),
    (spinning, "took longer than 0.2 s"),
    (stubborn, "took longer than 0.2 s"),
    (backtracking, "took longer than 0.2 s"),
    (waiting, "took longer than 0.2 s"),
]


@pytest.mark.parametrize(("function", "what"), CALLS, ids=[f.__name__ for f, _ in CALLS])
def test_a_call_that_fails_stops_the_run_or_is_left_out(function, what, told):
    for on_error in ("strict", "stop"):
        with pytest.raises(
            RewardError, match=rf"the reward function {function.__name__!r} {re.escape(what)}: mend it"
        ):
            guarded(function, on_error, 0.2)(**GIVEN)
    counts = {}
    assert guarded(function, "mask", 0.2)(**GIVEN, log_metric=counts.__setitem__) == [None] * N
    assert counts == {f"gcpo/reward_failures/{function.__name__}": 1.0}
    assert what in told[-1]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 1e30, 10**400, "0.5", [1, 2], {}, torch.tensor([1.0, 2.0]), 1e16]
)
def test_a_value_that_is_no_reward_is_left_out_or_stops_a_strict_run(value, told):
    def partly(completions, **_):
        return [1, None, value, np.float32(0.5)]

    for on_error in ("stop", "mask"):
        counts = {}
        given = guarded(partly, on_error)(**GIVEN, log_metric=counts.__setitem__)
        assert given == [1.0, None, None, 0.5]
        assert counts == {"gcpo/reward_failures/partly": 0.25}
        assert "'partly' returned" in told[-1]
        assert "for response 2 of 4, 1 such in all" in told[-1]
    with pytest.raises(RewardError, match="'partly' returned"):
        guarded(partly, "strict")(**GIVEN)


@pytest.mark.parametrize("given", [[0, 1, True, None], (0.5, -1, 2, 3), np.ones(N), torch.ones(N), iter([1.0] * N)])
def test_good_rewards_pass_whatever_they_come_in_and_are_no_failure(given, told):
    counts = {}
    found = guarded(lambda completions, **_: given, "strict", 5)(**GIVEN, log_metric=counts.__setitem__)
    assert all(value is None or type(value) is float for value in found)
    assert len(found) == N
    assert set(counts.values()) == {0.0}
    assert not told


def test_async_functions_have_a_time_limit_too():
    async def slow(completions, **_):
        await asyncio.sleep(60)

    async def good(completions, **_):
        await asyncio.sleep(0)
        return [1] * len(completions)

    async def own(completions, **_):
        raise TimeoutError("of the server")

    assert asyncio.run(guarded(good, "strict", 5)(**GIVEN)) == [1.0] * N
    assert asyncio.run(guarded(slow, "mask", 0.1)(**GIVEN)) == [None] * N
    with pytest.raises(RewardError, match=r"'slow' took longer than 0.1 s"):
        asyncio.run(guarded(slow, "stop", 0.1)(**GIVEN))
    with pytest.raises(RewardError, match="'own' raised TimeoutError: of the server"):
        asyncio.run(guarded(own, "stop", 5)(**GIVEN))


def test_names_models_and_guards_of_the_users_own_stay():
    class Grader:
        def __call__(self, completions, **_):
            return [1.0] * len(completions)

    model = torch.nn.Linear(1, 1)
    assert guarded(model) is model
    assert guarded("hub/model") == "hub/model"
    mine = guarded(tiny.spread, "mask")
    assert guarded(mine, "strict") is mine
    assert mine.__name__ == "spread"
    assert guarded(functools.partial(tiny.spread)).__name__ == "spread"
    assert guarded(Grader()).__name__ == "Grader"
    assert guarded(Grader())(**GIVEN) == [1.0] * N


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="on_error must be one of strict, stop, mask, found 'ignore'"):
        guarded(tiny.spread, "ignore")
    with pytest.raises(ValueError, match="time_limit must be a positive"):
        guarded(tiny.spread, time_limit=0)
    with pytest.raises(ValueError, match="gcpo_reward_errors must be one of strict, stop, mask, found 'ignore'"):
        GCPOConfig(str(tmp_path), gcpo_reward_errors="ignore", bf16=False)
    with pytest.raises(ValueError, match="gcpo_reward_time_limit must be above 0, found -1"):
        GCPOConfig(str(tmp_path), gcpo_reward_time_limit=-1, bf16=False)


def test_libraries_with_alarms_of_their_own_work_under_a_time_limit(caplog):
    from math_verify import parse, verify

    def equal(completions, **_):
        return [float(verify(parse("$1/2$"), parse("$0.5$"))) for _ in completions]

    assert guarded(equal, "strict", 30)(**GIVEN) == [1.0] * N
    assert not caplog.records


def test_a_time_limit_away_from_the_main_thread_is_refused_even_where_failures_are_masked():
    caught = []

    def work():
        try:
            guarded(tiny.spread, "mask", 1.0)(**GIVEN)
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "needs the main thread" in caught[0]


def build(directory, functions, **settings):
    return GCPOTrainer(
        model=tiny.model(),
        reward_funcs=functions,
        args=GCPOConfig(output_dir=str(directory), **SETTINGS | settings),
        train_dataset=tiny.dataset(),
        processing_class=tiny.tokenizer(),
    )


def test_a_run_goes_on_with_the_functions_that_work(tmp_path, told):
    alone = build(tmp_path, [tiny.spread], gcpo_log_signals=[])
    alone.train()
    settings = {"gcpo_reward_errors": "mask", "gcpo_reward_time_limit": 0.3}
    beside = build(tmp_path, [raising, tiny.spread, hanging], **settings)
    beside.train()
    assert torch.equal(parameters(beside), parameters(alone))
    assert not torch.equal(parameters(beside), untrained())
    assert logged(beside, "gcpo/reward_failures/raising") == [1.0] * 3
    assert logged(beside, "gcpo/reward_failures/hanging") == [1.0] * 3
    assert logged(beside, "gcpo/reward_failures/spread") == [0.0] * 3


def test_no_response_gains_by_a_penalty_that_fails(tmp_path, told):
    def penalty(completions, **_):
        return [float("nan") if c[:1] < "e" else -1.0 for c in completions]

    def silent(completions, **_):
        return [None] * len(completions)

    trainer = build(tmp_path, [tiny.spread, penalty, silent])
    trainer.train()
    groups = trainer.last_groups
    failed = torch.tensor([c[:1] < "e" for c in groups.completions]).view_as(groups.rewards)
    assert failed.any()
    assert not failed.all()
    assert groups.rewards[failed].isnan().all()
    assert not groups.outcome.counted[failed].any()
    assert (groups.outcome.advantages[failed] == 0).all()
    assert groups.outcome.counted[~failed].all(), "None alone takes nobody out"


def test_huge_rewards_do_not_reach_the_parameters(tmp_path, told):
    def huge(completions, **_):
        return [1e300, -1e30, 1e18, *[1.0] * (len(completions) - 3)]

    trainer = build(tmp_path, huge, learning_rate=1e-2)
    trainer.train()
    assert parameters(trainer).isfinite().all()
    assert logged(trainer, "gcpo/reward_failures/huge") == [3 / 8] * 3


def test_a_failing_function_stops_the_run_by_name(tmp_path):
    with pytest.raises(RewardError, match="the reward function 'raising' raised KeyError: 'gold'"):
        build(tmp_path, raising).train()
