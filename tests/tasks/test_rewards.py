"""Rewards keep to their range, agree with independent counts, and say what is wrong with a name."""

import itertools
import math
import random
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpo.tasks import Example, get_task
from gcpo.tasks.posed import Posed
from gcpo.tasks.rewards import REWARDS, Reward, parse
from gcpo.tasks.words import f1, lcs_f, words

PARIS = Example("?", "Paris", "Paris", ("the city of Paris",))
CHOICE = Example("?", "B", "B", row={"options": ["Rome", "Paris", "Oslo"]})


def given_by(name, response, example):
    return parse([name])(response, example)


@pytest.mark.parametrize(
    ("name", "answer", "response", "value"),
    [
        ("exact", "Paris", "paris.", 1),
        ("exact", "Paris", "It is in France. <answer>Paris</answer>", 1),
        ("exact", "Paris", "I say Paris", 0),
        ("exact", "1,234", "#### 1234", 1),
        ("numeric", "1234", "that makes $1,234.00 in all", 1),
        ("numeric", "0.5", "\\boxed{1/2}", 1),
        ("numeric", "-3", "the answer is \u22123", 1),
        ("numeric", "12 %", "12", 1),
        ("numeric", "3", "three", 0),
        ("numeric", "3", "1/0", 0),
        ("numeric", "3", "3" * 5000, 0),
        ("numeric", "3", "1/" + "3" * 5000, 0),
        ("numeric:0.01", "100", "100.9", 1),
        ("numeric:0.01", "100", "101.1", 0),
        ("math", "\\frac{1}{2}", "\\boxed{0.5}", 1),
        ("math", "Paris", "Paris", 1),
        ("math", "Paris", "London", 0),
        ("format", "x", "so \\boxed{3}", 1),
        ("format", "x", "so 3", 0),
        ("format:^<think>.*</think>", "x", "<think>a\nb</think>c", 1),
        ("format:^<think>.*</think>", "x", "a", 0),
        ("length:4", "x", "a b c d", 1),
        ("length:4", "x", "a b c d e f", 0.5),
        ("length:4", "x", "a b c d e f g h i", 0),
    ],
)
def test_values(name, answer, response, value):
    assert given_by(name, response, Example("?", answer, answer)) == value


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("B", 1),
        ("(B)", 1),
        ("**B.** Paris", 1),
        ("The answer is B.", 1),
        ("Answer: (b)", 0),
        ("A or B? The answer is A", 0),
        ("A is wrong, so the answer is B because it is in France", 1),
        ("\\boxed{B}", 1),
        ("<answer>Paris</answer>", 1),
        ("paris", 1),
        ("Rome", 0),
        ("", 0),
        ("A good question. I do not know", 0),
        ("B. Paris\nI chose this because it is in France", 1),
        ("The correct answer is B. Option A is wrong because it is not, and option C is too", 1),
        ("The answer is B, not choice D.", 1),
        ("**B**\n\nA capital is meant.", 1),
        ("My answer: I'd say so", 0),
        ("I think it is option B", 1),
        ("A) London\nB) Paris\nI take B", 1),
        ("Answer: Z\nB", 1),
    ],
)
def test_choice(response, value):
    assert given_by("choice", response, CHOICE) == value


@pytest.mark.parametrize("response", ["A good question. I do not know", "A capital is meant", "I'd say so"])
def test_a_word_is_no_choice(response):
    first, ninth = (replace(CHOICE, answer=letter) for letter in "AI")
    assert given_by("choice", response, first) == given_by("choice", response, ninth) == 0


def test_of_several_right_answers_the_best_counts():
    assert given_by("token-f1", "city of Paris", PARIS) == 1.0  # SQuAD takes the article out
    assert given_by("rouge-l", "Paris of city", PARIS) == pytest.approx(2 / 4)  # of "Paris"; in order only 1 of 3
    assert given_by("token-f1", "Paris of city", PARIS) == 1.0
    assert given_by("exact", "THE CITY OF PARIS", PARIS) == 1.0
    assert given_by("similarity", "Paris", PARIS) == pytest.approx(1.0)


def longest_common(a, b):
    """By trying every subsequence."""
    best = 0
    for n in range(len(a) + 1):
        for chosen in itertools.combinations(a, n):
            rest = iter(b)
            if all(word in rest for word in chosen):
                best = n
    return best


def test_overlaps_agree_with_counting_by_hand():
    rng = random.Random(0)
    for _ in range(200):
        a, b = ([rng.choice("xyz") for _ in range(rng.randint(1, 6))] for _ in range(2))
        shared = sum(min(a.count(w), b.count(w)) for w in set(a))
        precision, recall = shared / len(a), shared / len(b)
        expected = 0 if not shared else 2 * precision * recall / (precision + recall)
        assert f1(a, b) == pytest.approx(expected)
        assert lcs_f(a, b) == pytest.approx(2 * longest_common(a, b) / (len(a) + len(b)))
    assert f1([], []) == lcs_f([], []) == 1.0
    assert f1([], ["a"]) == lcs_f(["a"], []) == 0.0


def test_words_are_squads():
    assert words("The Mill's, a (very) OLD—mill!") == ["mills", "very", "oldmill"]


@given(st.text(max_size=60), st.sampled_from([*(n for n in REWARDS if n != "math"), "length:3", "format:x"]))
def test_every_reward_keeps_to_its_range_on_any_text(response, name):
    for example in (PARIS, CHOICE, Example("?", "72", "72")):
        value = parse([name])(response, example)
        assert 0 <= value <= 1


def test_the_sum_and_its_range_follow_from_the_parts():
    both = parse(["token-f1", "0.5*format", "-0.25*length:1"])
    assert (both.low, both.high) == (-0.25, 1.5)
    example = Example("?", "x", "x")
    assert both("\\boxed{x}", example) == pytest.approx(1 + 0.5 - 0.25)
    assert both("y z", example) == 0
    assert both.score("\\boxed{x}", example) == 1.0, "the first alone says how right it is"


def test_a_task_takes_other_rewards_and_says_their_range():
    task = get_task("chain")
    posed = Posed(task, parse(["task", "0.2*length:50"], task))
    example = posed.examples("test", 1, 0)[0]
    assert posed.reward_range == pytest.approx(1.2)
    assert posed.grade(example.solution, example) == pytest.approx(1.2)
    assert (posed.score(example.solution, example), posed.score("no", example)) == (1.0, 0.0)


OWN = '''
def shout(response, example):
    """How loud it is."""
    return 10 * (response == response.upper())

shout.range = (0, 10)

calls = []
def dear(response, example):
    calls.append(response)
    return 0.5

def wild(response, example):
    return 3

def of_trl(completions, **columns):
    return [0.0]

def none_at_all(response, example):
    return float("nan")

number = 5
def reversed_range(response, example): return 0
reversed_range.range = (1, 0)
'''


def test_a_users_own_reward_from_a_file_or_a_module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for place in ("my_rewards", f"{tmp_path}/my_rewards.py"):
        own = parse([f"0.5*{place}:shout"])
        assert (own.low, own.high) == (0, 5)
        assert (own("HO", PARIS), own("ho", PARIS), own.score("HO", PARIS)) == (5, 0, 1)
    dear = parse(["my_rewards:dear"])
    assert (dear("x", PARIS), dear.score("x", PARIS)) == (0.5, 0.5)
    assert sys.modules["my_rewards"].calls == ["x"], "asked once"
    with pytest.raises(ValueError, match=r"must give numbers in \[0, 1\], found 3.0: set its attribute range"):
        parse(["my_rewards:wild"])("x", PARIS)
    nan = parse(["my_rewards:none_at_all"])
    assert math.isnan(nan("x", PARIS))
    assert nan.score("x", PARIS) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "reward must name at least one reward"),
        (["mat"], "a reward must be one of exact, .* or module:function, found 'mat'"),
        (["task"], "a reward must be one of"),
        (["x*math"], "the weight of a reward must be a number, found 'x'"),
        (["0*math"], "weights of rewards must be finite and not all 0, found 0[*]math"),
        (["nan*math"], "weights of rewards must be finite"),
        (["math:3"], "reward 'math' takes no argument, found '3'"),
        (["numeric:x"], "the tolerance of reward 'numeric'"),
        (["length:0"], "must be a number of words, found '0'"),
        (["format:("], "must be a regular expression"),
        (["absent_module:f"], "the reward 'absent_module:f' cannot be loaded: ModuleNotFoundError: No module named"),
        (["math_verify:absent"], "cannot be loaded: AttributeError: module 'math_verify' has no attribute 'absent'"),
        (["absent.py:f"], "the reward 'absent.py:f' cannot be loaded"),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        parse(words)


def test_what_is_no_reward_is_refused(tmp_path):
    (tmp_path / "r.py").write_text(OWN)
    with pytest.raises(ValueError, match="must be a function of response and example, found int"):
        parse([f"{tmp_path}/r.py:number"])
    with pytest.raises(ValueError, match="must be a function of response and example: too many positional"):
        parse([f"{tmp_path}/r.py:of_trl"])
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=r"broken\.py:f' cannot be loaded: ZeroDivisionError"):
        parse([f"{tmp_path}/broken.py:f"])
    with pytest.raises(ValueError, match=r"the range of reward .* must be its least and largest number"):
        parse([f"{tmp_path}/r.py:reversed_range"])


def test_every_reward_has_a_line_for_listings():
    for name, make in REWARDS.items():
        reward: Reward = make(None)
        assert reward.summary, name
        assert (reward.low, reward.high) == (0.0, 1.0)


def test_a_file_of_rewards_may_define_dataclasses(tmp_path):
    (tmp_path / "graded.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Seen:\n    words: int\n\n"
        "def brief(response, example):\n    return 1 / Seen(len(response.split())).words\n"
    )
    assert parse([f"{tmp_path / 'graded.py'}:brief"])("two words", CHOICE) == 0.5
