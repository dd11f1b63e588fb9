"""Noise and size of a gradient from inner products, against the vectors themselves and against what they estimate."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.probe.variance import mean_norm, mean_square, score_variance, snr, weighted_variance

seeds = st.integers(0, 2**31)


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(2, 9), st.integers(1, 12), seeds)
def test_they_are_those_of_the_vectors(G, F, seed):
    s, a = draw(seed, 3, G, F), draw(seed + 1, 3, G)
    K, g = s @ s.mT, s * a.unsqueeze(-1)
    torch.testing.assert_close(score_variance(K), s.var(-2).sum(-1))
    torch.testing.assert_close(weighted_variance(K, a), g.var(-2).sum(-1))
    torch.testing.assert_close(mean_norm(K, a), g.mean(-2).norm(dim=-1))
    pairs = torch.stack([(g[:, i] * g[:, j]).sum(-1) for i in range(G) for j in range(G) if i != j]).mean(0)
    torch.testing.assert_close(mean_square(K, a), pairs)
    torch.testing.assert_close(snr(K, a), pairs / (g.var(-2).sum(-1) / G))


@given(seeds)
def test_what_does_not_count_is_as_if_it_were_not_there(seed):
    s, a = draw(seed, 1, 6, 4), draw(seed + 1, 1, 6)
    K, mask = s @ s.mT, torch.tensor([[True, False, True, True, False, True]])
    bad = K.clone()
    bad[:, 1], bad[:, :, 1], bad[:, 4, 4] = torch.nan, torch.nan, torch.inf
    rest = K[:, mask[0]][:, :, mask[0]]
    for statistic in (weighted_variance, mean_norm, mean_square, snr):
        torch.testing.assert_close(statistic(bad, a, mask), statistic(rest, a[mask].unsqueeze(0)))
        torch.testing.assert_close(statistic(bad, a), statistic(rest, a[mask].unsqueeze(0)))
    torch.testing.assert_close(score_variance(bad), score_variance(rest))


def test_the_mean_square_has_no_bias_and_the_plain_square_has_that_of_the_noise():
    mean, groups, G = torch.tensor([1.0, 2.0]).double(), 40_000, 4
    s = mean + 3 * draw(0, groups, G, 2)
    K, ones = s @ s.mT, torch.ones(groups, G).double()
    assert mean_square(K, ones).mean().item() == pytest.approx(5, abs=0.15)
    assert mean_norm(K, ones).square().mean().item() == pytest.approx(5 + 18 / G, abs=0.15)
    assert weighted_variance(K, ones).mean().item() == pytest.approx(18, abs=0.15)


def test_degenerate_groups():
    one, a = torch.full((1, 1, 1), 4.0), torch.tensor([[2.0]])
    assert score_variance(one) == weighted_variance(one, a) == mean_square(one, a) == snr(one, a) == 0
    assert mean_norm(one, a) == 4
    equal = torch.full((1, 3, 3), 4.0)
    assert score_variance(equal) == 0
    assert mean_square(equal, torch.ones(1, 3)) == 4
    assert snr(equal, torch.ones(1, 3)) == torch.inf
    assert snr(equal, torch.zeros(1, 3)) == 0
    nobody = torch.zeros(1, 3, dtype=torch.bool)
    assert score_variance(equal, nobody) == mean_norm(equal, torch.ones(1, 3), nobody) == 0
