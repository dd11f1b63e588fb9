"""What first draws do to the expected update, by enumeration of all groups."""

from itertools import combinations, product
from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.advantages import BASES
from gcpo.advantages.first_draws import completion

REWARD = st.sampled_from([0.0, 0.5, 1.0, nan])


def differ(rewards):
    finite = [r for r in rewards if r == r]
    return bool(finite) and min(finite) < max(finite)


@given(st.lists(REWARD, min_size=2, max_size=7), st.data())
def test_it_is_the_share_of_first_draws_that_differ(rewards, data):
    first = data.draw(st.integers(2, len(rewards)))
    ways = [differ(chosen) for chosen in combinations(rewards, first)]
    expected = sum(ways) / len(ways) or 1.0
    found = completion(torch.tensor([rewards], dtype=torch.float64), first)
    assert found.item() == pytest.approx(expected)


def factor(p, G, first):
    q, m = 1 - p, G - first
    alike = first * (p ** (first - 1) + q ** (first - 1)) + (m - 1) * (p**first + q**first)
    return 1 - m * alike / (G * (G - 1))


def expected_updates(base, p, G, first):
    """Of whole groups, with first draws, and with those weighed by 1 / c; scores are one number for each reward."""
    rewards = torch.tensor(list(product([0.0, 1.0], repeat=G)), dtype=torch.float64)
    probability = torch.where(rewards == 1, p, 1 - p).prod(-1)
    scores = torch.where(rewards == 1, 1 - p, -p)  # of mean zero, as the scores of all responses together
    norms = {"norms": torch.where(rewards == 1, 1.0, 2.0)} if base == "score-baseline" else {}
    updates = (BASES[base](rewards, **norms) * scores).sum(-1)
    completed = torch.tensor([differ(r[:first].tolist()) for r in rewards])
    drawn = updates * completed
    return [(probability * u).sum().item() for u in (updates, drawn, drawn / completion(rewards, first))]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("G", "first"), [(8, 4), (8, 2), (5, 3)])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
def test_the_bias_is_the_stated_weight_and_dividing_by_it_leaves_none(base, G, first, p):
    whole, drawn, weighed = expected_updates(base, p, G, first)
    assert weighed == pytest.approx(whole)
    assert first / G * whole < drawn < whole
    if base in ("rloo", "dr-grpo"):
        assert drawn == pytest.approx(factor(p, G, first) * whole)


def test_the_weight_at_its_ends():
    rare, even = torch.zeros(1, 8), torch.tensor([[0.0, 1.0] * 4])
    rare[0, 3] = 1
    assert completion(rare, 4).item() == pytest.approx(4 / 8)
    assert completion(even, 4).item() == pytest.approx(1 - 2 / 70)
    assert factor(1e-9, 8, 4) == pytest.approx(4 / 8)
    assert completion(torch.ones(1, 8), 4).item() == 1.0
