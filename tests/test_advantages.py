"""Base advantages, calibrations and modulations against formulas by hand and against TRL's code."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import nanstd

from gcpo.advantages import (
    BASES,
    CALIBRATIONS,
    MODULATIONS,
    damping,
    dr_grpo,
    grpo,
    renormalize,
    rloo,
    score_baseline,
)

rewards = st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=5)
UNIT = torch.linspace(0, 1, 11)


def call(base, r, mask=None):
    """A base advantage, with norms 1, 2, 3, ... if it takes them."""
    norms = {"norms": torch.arange(1.0, r.shape[1] + 1).expand_as(r)} if base is score_baseline else {}
    return base(r, mask=mask, **norms)


def trl_advantages(r, scale):
    """TRL's own arithmetic (grpo_trainer.py 1.16, sum_then_normalize), group-wise."""
    centred = r - torch.nanmean(r, dim=1, keepdim=True)
    return centred / (nanstd(r, dim=1, keepdim=True) + 1e-4) if scale else centred


def test_one_success_in_four():
    r = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert grpo(r)[0, 0].item() == pytest.approx(1.4997, abs=1e-4)
    assert dr_grpo(r)[0, 0].item() == pytest.approx(0.75)
    assert rloo(r)[0].tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


@given(rewards)
def test_equal_to_trl_bit_by_bit_where_rewards_differ(values):
    r = torch.tensor(values)
    live = r.amax(1) > r.amin(1)
    assert torch.equal(grpo(r)[live], trl_advantages(r, scale=True)[live])
    assert torch.equal(dr_grpo(r)[live], trl_advantages(r, scale=False)[live])


@given(rewards)
def test_rloo_is_each_reward_against_the_mean_of_the_others(values):
    r = torch.tensor(values, dtype=torch.float64)
    by_hand = torch.stack([r[:, i] - r[:, [j for j in range(4) if j != i]].mean(1) for i in range(4)], 1)
    torch.testing.assert_close(rloo(r), by_hand, atol=1e-9, rtol=0)


@given(constant=st.floats(-1e6, 1e6, width=32), G=st.integers(1, 17))
def test_equal_rewards_give_exactly_zero(constant, G):
    for base in BASES.values():
        assert call(base, torch.full((2, G), constant)).eq(0).all()


def test_the_known_trap_is_a_trap():
    # Eight rewards of 0.3: TRL's formula does not give 0, ours does.
    r = torch.full((1, 8), 0.3)
    assert trl_advantages(r, scale=True).abs().max() > 1e-4
    assert grpo(r).eq(0).all()


@pytest.mark.parametrize("base", BASES)
def test_a_masked_response_gets_zero_and_is_in_no_statistic(base):
    r = torch.tensor([[1.0, 0.0, 0.5, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    advantages = call(BASES[base], r, mask)
    torch.testing.assert_close(advantages[:, :3], call(BASES[base], r[:, :3]))
    assert advantages[0, 3] == 0


def test_calibrations_at_their_corners():
    one, zero = torch.ones(1), torch.zeros(1)
    assert [CALIBRATIONS["residual"](one, rd).item() for rd in (zero, one)] == [1.0, 0.0]
    assert [CALIBRATIONS["product"](one, rd).item() for rd in (zero, one)] == [0.0, 1.0]
    assert CALIBRATIONS["none"](one, zero).item() == 1.0


@pytest.mark.parametrize("name", MODULATIONS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_a_modulation_is_one_at_zero_and_falls_within_zero_and_one(name, alpha):
    w = MODULATIONS[name](UNIT, alpha)
    assert w[0] == 1
    assert (w.diff() <= 0).all()
    assert ((w >= 0) & (w <= 1)).all()
    if alpha == 0:
        assert (w == 1).all()


def test_modulations_by_hand():
    u = torch.tensor([0.5])
    by_hand = {"linear": 0.0, "exponential": math.exp(-1), "focal": 0.25, "rational": 0.5}
    for name, expected in by_hand.items():
        assert MODULATIONS[name](u, 2.0).item() == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=8))
def test_renormalized_weights_have_mean_one_over_live_groups(pairs):
    w, live = torch.tensor([p[0] for p in pairs]), torch.tensor([p[1] for p in pairs])
    scaled = renormalize(w * live, live)
    if live.any():
        assert scaled[live].mean().item() == pytest.approx(1, abs=1e-5)
    else:
        assert torch.equal(scaled, w * live)


@given(rewards, st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
def test_the_score_baseline_is_the_weighted_mean_of_the_others(values, norms):
    r, s = torch.tensor(values, dtype=torch.float64), torch.tensor([norms], dtype=torch.float64)
    w = (s / s.max()).square().expand_as(r) + 1e-6
    others = [[j for j in range(4) if j != i] for i in range(4)]
    by_hand = torch.stack([r[:, i] - (w * r)[:, o].sum(1) / w[:, o].sum(1) for i, o in enumerate(others)], 1)
    live = r.amax(1) > r.amin(1)
    torch.testing.assert_close(score_baseline(r, s.expand_as(r))[live], by_hand[live], atol=1e-9, rtol=0)


@given(rewards, st.sampled_from([0.0, 1e-20, 1.0, 1e20]))
def test_with_equal_norms_the_score_baseline_is_rloo(values, norm):
    r = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(score_baseline(r, torch.full_like(r, norm)), rloo(r), atol=1e-9, rtol=0)


def test_a_norm_that_is_not_finite_is_nobodys_baseline():
    r = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    norms = torch.tensor([[1.0, 2.0, 3.0, float("nan")]])
    known = score_baseline(r[:, :3], norms[:, :3])
    found = score_baseline(r, norms)
    torch.testing.assert_close(found[:, :3], known)
    assert found[0, 3].item() == pytest.approx(1 - 1 / 14, abs=1e-4)


def test_the_score_baseline_is_unbiased_and_of_many_responses_has_less_variance_than_rloo():
    """Draws of 32 responses from a softmax over four, whose scores are known, many times over."""
    generator = torch.Generator().manual_seed(0)
    logits, reward = torch.tensor([2.0, 0.0, -1.0, -2.0], dtype=torch.float64), torch.tensor([0.0, 1.0, 0.0, 1.0])
    p = logits.softmax(0)
    scores = torch.eye(4, dtype=torch.float64) - p  # row y: gradient of log p(y) by the logits
    drawn = torch.multinomial(p.expand(20_000, 4), 32, replacement=True, generator=generator)
    r, s = reward[drawn].double(), scores[drawn]
    gradient = {
        "score": (score_baseline(r, s.norm(dim=-1)).unsqueeze(-1) * s).mean(1),
        "rloo": (rloo(r).unsqueeze(-1) * s).mean(1),
    }
    truth = (p * reward) @ scores
    for estimate in gradient.values():
        error = estimate.std(0) / len(estimate) ** 0.5
        assert ((estimate.mean(0) - truth).abs() < 4 * error).all()
    assert gradient["score"].var(0).sum() < 0.6 * gradient["rloo"].var(0).sum()


def test_damping_divides_by_a_power_of_the_length():
    s, counted = torch.tensor([[1.0, 2.0, 4.0, 5.0]]), torch.tensor([[True, True, True, False]])
    torch.testing.assert_close(damping(s, counted, c=1.0)[:, :3], torch.tensor([[1.0, 0.5, 0.25]]))
    torch.testing.assert_close(damping(s, counted, c=0.5)[:, :3], torch.tensor([[1.0, 0.5**0.5, 0.5]]))
    sure = torch.tensor([[1e-30, 1.0, 2.0]])
    torch.testing.assert_close(damping(sure, sure > 0, c=1.0), torch.tensor([[10.0, 1.0, 0.5]]))
    assert damping(s, counted, c=0.0).eq(1).all()


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_response_of_unknown_length_is_damped_as_its_group_is(bad):
    s, counted = torch.tensor([[1.0, 2.0, bad], [bad, bad, bad]]), torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(damping(s, counted, c=1.0), torch.tensor([[1.0, 0.5, 0.75], [1.0, 1.0, 1.0]]))


def test_with_damping_one_an_update_is_a_sum_of_directions():
    scores, advantages = torch.randn(3, 5, 7), torch.randn(3, 5)
    norms = scores.norm(dim=-1)
    v = damping(norms, torch.ones_like(norms, dtype=torch.bool), c=1.0)
    update = (advantages * v).flatten() @ scores.flatten(0, 1)
    torch.testing.assert_close(update, advantages.flatten() @ (scores / norms.unsqueeze(-1)).flatten(0, 1))
