"""Barycentric transport against POT, closed forms, and cosine dispersion."""

import importlib
import itertools

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from gcpo import signals

inside = importlib.import_module("gcpo.signals.barycentric_transport")


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def pot(clouds, k, restarts):
    """Lowest cost of POT's exact free-support barycentre with k equal points over several restarts."""
    random, union = np.random.default_rng(0), np.concatenate(clouds)
    weights = [np.full(len(c), 1 / len(c)) for c in clouds]
    best = np.inf
    for restart in range(restarts):
        full = [c for c in clouds if len(c) == k]
        start = full[restart] if restart < len(full) else union[random.choice(len(union), k, replace=False)]
        support = ot.lp.free_support_barycenter(clouds, weights, start.copy(), numItermax=200, stopThr=1e-9)
        costs = [ot.emd2(w, np.full(k, 1 / k), ot.dist(c, support)) for c, w in zip(clouds, weights, strict=True)]
        best = min(best, float(np.mean(costs)))
    return best


def walks(B, G, S, D, seed):
    """Clouds like those of reasoning: shared steps in any order, responses that depart from them, a common offset."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.randn(B, 1, S, D, generator=g) + 0.6 * torch.randn(B, G, S, D, generator=g)
    steps = steps.gather(2, torch.rand(B, G, S, 1, generator=g).argsort(2).expand(B, G, S, D))
    return unit(steps + torch.randn(B, 1, 1, D, generator=g))


@pytest.mark.parametrize(("G", "S", "D"), [(8, 8, 64), (8, 4, 16), (4, 3, 8), (16, 8, 32), (3, 8, 16)])
@pytest.mark.parametrize("ragged", [False, True])
def test_within_two_percent_of_the_best_of_several_restarts_of_pot(G, S, D, ragged):
    B = 5
    for x in (walks(B, G, S, D, seed=1), unit(torch.randn(B, G, S, D))):
        sizes = torch.randint(1, S + 1, (B, G)) if ragged else torch.full((B, G), S)
        value = signals.barycentric_transport(x, torch.arange(S) < sizes.unsqueeze(-1))
        for b in range(B):
            clouds = [x[b, i, : sizes[b, i]].double().numpy() for i in range(G)]
            assert value[b].item() <= 1.02 * pot(clouds, int(sizes[b].max()), restarts=6)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31))
def test_one_point_a_response_gives_cosine_dispersions_multiple(G, D, seed):
    x = torch.randn(3, G, D, generator=torch.Generator().manual_seed(seed))
    expected = signals.cosine_dispersion(x) * (G - 1) / G
    torch.testing.assert_close(signals.barycentric_transport(x.unsqueeze(2)), expected, atol=1e-6, rtol=1e-5)


def test_one_point_left_by_the_mask_is_one_point():
    x = torch.randn(2, 5, 4, 8)
    mask = torch.arange(4).expand(2, 5, 4) == 2
    expected = signals.barycentric_transport(x[:, :, 2:3])
    torch.testing.assert_close(signals.barycentric_transport(x, mask), expected)


def test_two_responses_cost_a_quarter_of_their_distance():
    # The barycentre of two measures lies half way: 2 * (W/2)^2 / 2.
    x = unit(torch.randn(6, 2, 5, 12, dtype=torch.float64))
    weights = np.full(5, 0.2)
    w2 = [ot.emd2(weights, weights, ot.dist(a.numpy(), b.numpy())) for a, b in x]
    torch.testing.assert_close(
        signals.barycentric_transport(x), torch.tensor(w2, dtype=x.dtype) / 4, rtol=1e-4, atol=0
    )


def test_the_same_steps_in_another_order_cost_nothing():
    cloud = torch.randn(1, 1, 6, 16)
    x = torch.cat([cloud[:, :, torch.randperm(6)] for _ in range(5)], dim=1)
    assert signals.barycentric_transport(x).item() == pytest.approx(0.0, abs=1e-6)


def test_equal_means_with_different_steps_are_apart():
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    b = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert signals.barycentric_transport(torch.stack([a, b]).unsqueeze(0)).item() == pytest.approx(0.5, abs=1e-5)


def test_near_duplicate_clouds_are_not_lost():
    cloud = unit(torch.randn(1, 1, 3, 8, dtype=torch.float64))
    x = unit(cloud + 1e-5 * torch.randn(1, 4, 3, 8, dtype=torch.float64))
    exact = signals.barycentric_transport(x)
    assert exact.item() > 0
    torch.testing.assert_close(signals.barycentric_transport(x.float()).double(), exact, rtol=0.05, atol=0)


@pytest.mark.parametrize("responses", [2, 3])
def test_no_permutation_of_any_response_does_better(responses):
    S, x = 3, unit(torch.randn(20, responses, 3, 6, dtype=torch.float64))
    sent = [
        torch.stack([x[:, i, list(order)] for i, order in enumerate(orders)], 1).mean(1)
        for orders in itertools.product(itertools.permutations(range(S)), repeat=responses)
    ]
    best = 1 - torch.stack([y.square().sum(-1).mean(-1) for y in sent]).amax(0)
    value = signals.barycentric_transport(x)
    assert (value >= best - 1e-12).all()
    assert (value <= 1.02 * best).all()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_plans_are_those_of_an_exact_solver(n, k, seed):
    k = max(n, k)
    gain = torch.randn(1, k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plan = inside._plans(gain, torch.tensor([n]), torch.tensor([k]))
    a, b, cost = np.full(n, 1 / n), np.full(k, 1 / k), -gain[0, :n].numpy()
    np.testing.assert_allclose(plan[0, :n].sum(-1), a, atol=1e-9)
    np.testing.assert_allclose(plan[0].sum(-2), b, atol=1e-9)
    assert plan[0, n:].eq(0).all()
    assert -(plan * gain).sum().item() == pytest.approx(ot.emd2(a, b, cost - cost.min()) + cost.min(), abs=1e-7)


@given(st.integers(2, 8), st.integers(2, 6), st.integers(0, 2**31))
def test_another_round_never_costs_more(G, S, seed):
    x = walks(4, G, S, 12, seed)
    clouds = inside._clouds(x, None, None)
    cost = [inside._cost(clouds, inside._search(clouds, 1, rounds)[0] / G) for rounds in range(4)]
    assert all((after <= before + 1e-6).all() for before, after in itertools.pairwise(cost))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_the_value_is_what_its_plans_cost(G, S, seed):
    x = unit(walks(3, G, S, 7, seed).double())
    sizes = torch.randint(1, S + 1, (3, G), generator=torch.Generator().manual_seed(seed))
    clouds = inside._clouds(x, torch.arange(S) < sizes.unsqueeze(-1), None)
    plan, sent = inside._search(clouds, 1, 0)
    plan, y = plan / G, sent / G * sizes.amax(-1)[:, None, None]
    cost = (plan * (x.unsqueeze(-2) - y[:, None, None]).square().sum(-1)).sum((1, 2, 3))
    torch.testing.assert_close(inside._cost(clouds, plan), cost)
    quick = inside._quick_cost(clouds, plan, sent, torch.full((3, 1, 1), 1 / G, dtype=x.dtype))
    torch.testing.assert_close(quick, cost, atol=1e-12, rtol=1e-9)


def test_where_the_points_that_count_stand_does_not_matter():
    x, counts = walks(6, 5, 7, 12, seed=3), torch.rand(6, 5, 7) < 0.6
    packed = torch.zeros_like(x)
    for b, g in itertools.product(range(6), range(5)):
        packed[b, g, : counts[b, g].sum()] = x[b, g, counts[b, g]]
    expected = signals.barycentric_transport(packed)
    torch.testing.assert_close(signals.barycentric_transport(x, counts), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("offset", "largest"), [(1, 0.1), (10, 2e-3), (100, 2e-5), (400, 2e-6)])
def test_directions_that_nearly_agree_lose_no_digits(offset, largest):
    # Hidden states of a language model share most of their direction.
    g = torch.Generator().manual_seed(0)
    common = unit(torch.randn(6, 1, 1, 32, dtype=torch.float64, generator=g))
    x = walks(6, 8, 6, 32, seed=4).double() + offset * common
    value = signals.barycentric_transport(x)
    assert value.max() < largest
    torch.testing.assert_close(signals.barycentric_transport(x.float()).double(), value, rtol=1e-4, atol=0)


class TestFastForm:
    def test_ranks_groups_as_the_default_does_and_is_close_to_it(self):
        x = torch.cat([walks(1, 8, 5, 32, seed=s) for s in range(24)])
        scale = torch.linspace(0.2, 2, 24)[:, None, None, None]
        x = unit(x.mean(1, keepdim=True) + scale * (x - x.mean(1, keepdim=True)))
        default, fast = (signals.barycentric_transport(x, exact=e) for e in (True, False))
        assert spearmanr(default, fast).statistic > 0.98
        assert (fast > 0.999 * default).all()
        assert (fast < 1.1 * default).all()

    def test_is_the_default_where_only_one_barycentre_is_to_be_found(self):
        for x in (walks(5, 2, 4, 8, seed=0), walks(5, 9, 1, 8, seed=0)):
            torch.testing.assert_close(
                signals.barycentric_transport(x, exact=False), signals.barycentric_transport(x), atol=1e-6, rtol=1e-5
            )

    @settings(max_examples=20)
    @given(st.integers(0, 2**31))
    def test_owes_what_every_signal_owes(self, seed):
        def value(x, **given):
            return signals.barycentric_transport(x, exact=False, **given)

        x = walks(4, 6, 3, 8, seed)
        expected = value(x)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(value(x[:, order]), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(value(x * 7), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(value(x, mask=torch.arange(6).expand(4, 6) < 4), value(x[:, :4]))
        assert value(x[:, :1].expand(-1, 5, -1, -1)).abs().max() < 1e-6
        assert value(x[:, :1]).eq(0).all()
        for bad in (0.0, float("nan"), float("inf")):
            spoilt = x.clone()
            spoilt[0] = bad
            assert torch.equal(value(spoilt)[1:], expected[1:])
            assert value(spoilt)[0] == 0

    def test_has_the_gradient_of_its_value(self):
        x = walks(2, 4, 3, 8, seed=5).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda p: signals.barycentric_transport(p, exact=False), x)


def test_gradient_pulls_a_response_towards_the_others():
    x = walks(1, 4, 3, 8, seed=2).requires_grad_()
    value = signals.barycentric_transport(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    after = signals.barycentric_transport((x - 0.1 * gradient).detach())
    assert after.item() < value.item()


@pytest.mark.parametrize("ragged", [False, True])
def test_the_gradient_is_that_of_the_value(ragged):
    x = walks(2, 4, 3, 8, seed=5).double().requires_grad_()
    sizes = torch.tensor([[3, 2, 1, 3], [2, 2, 1, 1]]) if ragged else torch.full((2, 4), 3)
    mask = torch.arange(3) < sizes.unsqueeze(-1)
    assert torch.autograd.gradcheck(lambda p: signals.barycentric_transport(p, mask), x)
