"""Barycentric transport against POT, closed forms, and cosine dispersion."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import signals


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


def test_entropic_form_ranks_groups_as_the_exact_one_and_never_lies_far_below():
    from scipy.stats import spearmanr

    x = torch.cat([walks(1, 8, 5, 32, seed=s) * 1.0 for s in range(24)])
    scale = torch.linspace(0.2, 2, 24)[:, None, None, None]
    x = unit(x.mean(1, keepdim=True) + scale * (x - x.mean(1, keepdim=True)))
    exact, fast = (signals.barycentric_transport(x, exact=e) for e in (True, False))
    assert spearmanr(exact, fast).statistic > 0.98
    assert (fast > 0.9 * exact).all()


def test_gradient_pulls_a_response_towards_the_others():
    x = walks(1, 4, 3, 8, seed=2).requires_grad_()
    value = signals.barycentric_transport(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    after = signals.barycentric_transport((x - 0.1 * gradient).detach())
    assert after.item() < value.item()
