"""The driver's side of hosts with flat rows: the same numbers as in TRL, and what rows of every kind get."""

import asyncio
import inspect
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from gcpo import RECIPES, recipe
from gcpo.integrations.driver import Driver, Options, read_options
from gcpo.integrations.rows import arrange
from gcpo.integrations.vectors import NAMES, pack, unpack, with_vectors
from gcpo.semantics import HashedNgrams
from tests.integrations.hosted import GOLDEN, Flat
from tests.integrations.make_golden import ALSO, through_trl

close = {"atol": 1e-6, "rtol": 1e-6}


def test_an_embedder_without_a_name_is_refused():
    with pytest.raises(ValueError, match="embedder must name where vectors come from, found ''"):
        read_options({"embedder": ""})


def matches(name, groups):
    fields = {field: groups[field] for field in ("scores", "log_probs") if field in groups}
    flat = Flat(groups["texts"], groups["rewards"], **fields)
    steered = Driver(Options(recipe=name, log_signals=ALSO))(flat)
    torch.testing.assert_close(steered.values, flat.expected(groups["advantages"]), **close)
    for signal, value in groups["signals"].items():
        found = steered.metrics[f"gcpo/signal/{signal}"]
        assert found == pytest.approx(sum(value) / len(value), abs=1e-6), signal


@pytest.mark.parametrize("name", RECIPES)
def test_stored_groups_get_what_trl_gave_them(name):
    matches(name, GOLDEN[name])


@pytest.mark.parametrize("name", ["gcpo-bot", "seed-grpo", "gcpo"])
def test_the_same_groups_get_the_same_from_both_integrations(name):
    matches(name, through_trl(name))


class InlineRay:
    """As much of Ray as sharing out uses, in this process; ``tests/verl`` has the real one."""

    def __init__(self):
        self.asked = []

    def remote(self, **_):
        return lambda kind: SimpleNamespace(remote=lambda *args: self.actor(kind(*args)))

    def actor(self, driver):
        def signals(groups):
            self.asked.append(len(groups.rewards))
            return driver.signals(groups)

        return SimpleNamespace(signals=SimpleNamespace(remote=signals))

    def get(self, found):
        return found


@pytest.mark.parametrize("workers", [1, 3, 9])
@pytest.mark.parametrize("name", RECIPES)
def test_workers_find_what_the_driver_alone_finds(monkeypatch, name, workers):
    ray = InlineRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    groups = GOLDEN[name]
    fields = {field: groups[field] for field in ("scores", "log_probs") if field in groups}
    flat = Flat(groups["texts"], groups["rewards"], **fields)
    alone = Driver(Options(recipe=name, log_signals=ALSO))(flat)
    shared = Driver(Options(recipe=name, log_signals=ALSO, workers=workers))(flat)
    torch.testing.assert_close(shared.values, alone.values, **close)
    assert shared.metrics.keys() == alone.metrics.keys()
    assert len(ray.asked) == min(workers, len(groups["rewards"]))
    assert sum(ray.asked) == len(groups["rewards"])


class Rows:
    """Rows as a test writes them down."""

    def __init__(self, groups, rewards, trains=None, texts=None, fields=None, **arrangement):
        self.rows = arrange(groups, **arrangement)
        self.rewards = torch.tensor(rewards)
        self.trains = torch.tensor(trains or [True] * len(groups))
        self.said = texts or [f"step {i}\nanswer {i * i}" for i in range(len(groups))]
        self.fields = fields or {}

    def texts(self, rows):
        return [self.said[row] for row in rows]

    def field(self, name, rows):
        return [self.fields[name][row] for row in rows]


def advantages(rows, **options):
    return Driver(Options(**options))(rows).values


def test_groups_of_different_size_are_each_what_they_are_alone():
    rewards = [1.0, 0.0, 1.0, 0.25, 0.0, 0.5, 1.0]
    together = Rows(list("aabbbab"), rewards)
    found = advantages(together, recipe="grpo")
    for name in "ab":
        mine = [i for i, group in enumerate("aabbbab") if group == name]
        alone = recipe("grpo")(torch.tensor([[rewards[i] for i in mine]])).advantages[0]
        torch.testing.assert_close(found[mine], alone, **close)


def test_a_larger_group_beside_it_changes_no_signal_of_a_small_one():
    texts = ["one\ntwo", "three\nfour", "five", "six\nseven", "eight", "nine"]
    small = Rows("aa", [1.0, 0.0], texts=texts[:2])
    both = Rows("aabbbb", [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], texts=texts)
    options = Options(log_signals=ALSO)
    alone, beside = Driver(options)(small).outcome, Driver(options)(both).outcome
    for name in alone.signals:
        torch.testing.assert_close(beside.signals[name][:1], alone.signals[name], **close)


def test_rows_without_a_token_that_trains_count_for_nothing():
    rewards, trains = [1.0, 0.0, 0.5, 1.0, 0.0], [True, True, False, True, True]
    found = advantages(Rows("aaaaa", rewards, trains), recipe="dr-grpo")
    assert found.tolist() == [0.5, -0.5, 0.0, 0.5, -0.5]
    steered = Driver(Options(recipe="grpo"))(Rows("aaaaa", rewards, trains))
    assert steered.metrics["gcpo/masked_responses"] == pytest.approx(1 / 5)


def test_a_session_of_several_outputs_is_one_response_and_its_last_one_speaks():
    # Group a: session 0 of three outputs, whose last has the reward, and session 1 of one.
    rows = Rows("aaaa", [0.0, 9.0, 1.0, 0.0], sessions=[0, 0, 0, 1], outputs=[0, 1, 2, 0])
    assert advantages(rows, recipe="dr-grpo").tolist() == [0.5, 0.5, 0.5, -0.5]
    shuffled = Rows("aaaa", [0.0, 1.0, 9.0, 0.0], sessions=[1, 0, 0, 0], outputs=[0, 2, 1, 0])
    assert advantages(shuffled, recipe="dr-grpo").tolist() == [-0.5, 0.5, 0.5, 0.5]


def test_equal_rewards_lonely_responses_and_odd_rewards():
    rewards = [0.3] * 8 + [5.0] + [math.nan, 1.0, 0.0]
    found = advantages(Rows("aaaaaaaabccc", rewards), recipe="grpo")
    assert found[:10].tolist() == [0.0] * 10
    assert found[10] > 0 > found[11]


def test_base_verl_gives_factors_and_none_to_the_dead():
    rows = Rows("aabb", [1.0, 0.0, 0.5, 0.5])
    assert advantages(rows, recipe="grpo", base="verl").tolist() == [1.0, 1.0, 0.0, 0.0]
    weights = Driver(Options())(rows).outcome.weights
    assert advantages(rows, base="verl")[:2].tolist() == [weights[0].item()] * 2


def test_vectors_from_a_reward_function_are_the_source_of_geometry():
    texts = ["first\nsecond", "third", "4\n5\n6", "", "seven"]
    scored = [with_vectors(lambda solution_str: len(solution_str))(solution_str=text) for text in texts]
    assert [s["score"] for s in scored] == [len(text) for text in texts]
    fields = {name: [unpack(s[key]) for s in scored] for name, key in NAMES.items()}
    rewards, also = [1.0, 0.0, 0.0, 1.0, 0.0], ["cosine_dispersion", "barycentric_transport"]
    theirs = Driver(Options(embedder="reward", log_signals=also))(Rows("aaaaa", rewards, fields=fields))
    ours = Driver(Options(log_signals=also))(Rows("aaaaa", rewards, texts=texts))
    for name in also:
        torch.testing.assert_close(theirs.outcome.signals[name], ours.outcome.signals[name])


def test_a_reward_function_keeps_its_ways():
    def plain(data_source, solution_str, extra_info=None):
        """Mine."""
        return {"score": 0.5, "acc": 1.0}

    async def awaited(data_source, **kwargs):
        return 2.0

    wrapped = with_vectors(plain)
    assert wrapped.__doc__ == "Mine."
    assert wrapped("gsm8k", "a\nb").keys() == {"score", "acc", "gcpo_embedding", "gcpo_points"}
    assert unpack(wrapped("gsm8k", "a\nb")["gcpo_points"]).shape == (2, 512)
    assert inspect.iscoroutinefunction(with_vectors(awaited))
    assert asyncio.run(with_vectors(awaited)(data_source="x", solution_str="y"))["score"] == 2.0


def test_threads_take_turns_at_the_embedder(monkeypatch):
    inside, most = [], []

    class Slow(HashedNgrams):
        def embed(self, texts):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
            return super().embed(texts)

    slow = Slow()  # what it remembers is no place for two threads
    monkeypatch.setattr("gcpo.integrations.vectors.text_embedder", lambda name: slow)
    wrapped = with_vectors(lambda solution_str: 0.0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: wrapped(solution_str=text), ["a", "b", "c", "d"]))
    assert max(most) == 1


def test_pack_keeps_every_bit_and_unpack_says_what_is_wrong():
    for values in (torch.randn(7), torch.randn(2, 3), [0.5, 1e-30], torch.zeros(0, 4)):
        assert torch.equal(unpack(pack(values)), torch.as_tensor(values, dtype=torch.float32))
    for odd in ("3:AAAA", "x", [1.0, 2.0], None):
        with pytest.raises(ValueError, match="must be made by"):
            unpack(odd)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alhpa": 1.0}, "alhpa is no option: there are enable, recipe"),
        ({"recipe": "ppo"}, "recipe must be one of"),
        ({"base": "ppo"}, "base must be one of grpo, .*, verl, found 'ppo'"),
        ({"alpha": "strong"}, "alpha must be int or float, found 'strong'"),
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"max_points": True}, "max_points must be int, found True"),
        ({"max_points": 0}, "max_points must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"renormalize": 1}, "renormalize must be bool"),
        ({"log_signals": "semantic_entropy"}, "log_signals must be list or tuple"),
        ({"log_signals": ["no_signal"]}, "log_signals has no signal 'no_signal'"),
        ({"equivalence": "vague"}, "equivalence must be one of"),
        ({"signal": "no_signal"}, "signal must be one of"),
        ({"base": "verl", "recipe": "gcpo"}, "base='verl' cannot go with damping"),
    ],
    ids=str,
)
def test_a_wrong_option_gets_one_sentence(given, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:  # so that hosts can put their prefix before it
        read_options(given)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
