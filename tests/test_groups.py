"""Masks and per-group statistics against their closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import groups


@given(constant=st.floats(-1e4, 1e4, width=32), G=st.integers(1, 33))
def test_equal_rewards_are_dead_whatever_the_constant(constant, G):
    assert not groups.live(torch.full((1, G), constant)).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_live_means_two_rewards_differ(dtype):
    rewards = torch.tensor([[0, 0, 1], [1, 1, 1], [0, 0, 0]], dtype=dtype)
    assert groups.live(rewards).tolist() == [True, False, False]


def test_masked_and_non_finite_rewards_do_not_make_a_group_live():
    nan, inf = float("nan"), float("inf")
    rewards = torch.tensor([[1.0, nan, 1.0], [1.0, inf, -inf], [nan, nan, nan], [0.0, 1.0, 1.0]])
    mask = torch.tensor([[True] * 3, [True] * 3, [True] * 3, [False, True, True]])
    assert groups.live(rewards, mask).tolist() == [False] * 4


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=9), st.data())
def test_mean_and_std_equal_those_of_the_removed_rest(values, data):
    mask = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)).filter(lambda m: sum(m) > 1))
    x, m = torch.tensor([values], dtype=torch.float64), torch.tensor([mask])
    kept = x[m]
    assert groups.mean(x, m).item() == pytest.approx(kept.mean().item(), abs=1e-9)
    assert groups.std(x, m).item() == pytest.approx(kept.std().item(), abs=1e-7)
    assert groups.std(x, m, ddof=0).item() == pytest.approx(kept.std(correction=0).item(), abs=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_unit_vectors_at_any_scale(scale):
    u, valid = groups.unit(torch.tensor([[[3.0, 4.0], [0.0, -2.0]]]) * scale)
    torch.testing.assert_close(u, torch.tensor([[[0.6, 0.8], [0.0, -1.0]]]))
    assert valid.all()


def test_unit_leaves_out_zero_and_non_finite_vectors():
    x = torch.tensor([[[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [1.0, 0.0]]])
    u, valid = groups.unit(x)
    assert valid.tolist() == [[False, False, False, True]]
    assert u[0, :3].eq(0).all()
