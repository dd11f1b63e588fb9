"""The gradient's noise during training, against definitions by hand."""

import pytest
import torch

from gcpo.probe.live import GradientWatch


def batch(B=6, G=5, F=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, G, F, generator=g, dtype=torch.float64), torch.randn(B, G, generator=g, dtype=torch.float64)


def test_variance_and_signal_to_noise_by_hand():
    scores, advantages = batch()
    live = torch.tensor([True, True, False, True, True, True])
    counted = torch.ones(6, 5, dtype=torch.bool)
    counted[0, 4] = False
    found = GradientWatch()(scores, advantages, live, counted, None)
    variance, square, noise = [], 0.0, 0.0
    for b in range(6):
        if live[b]:
            g = (advantages[b, :, None] * scores[b])[counted[b]]
            variance.append(g.var(0).sum())
            noise += variance[-1] / len(g)
            square += g.mean(0).square().sum() - variance[-1] / len(g)  # the bias of |mean|^2 is the mean's variance
    assert found["variance"] == pytest.approx(torch.stack(variance).mean().item())
    assert found["snr"] == pytest.approx((square / noise).item())
    assert "rank_correlation" not in found


def test_the_running_correlation_is_over_the_groups_seen_lately():
    watch, live, counted = GradientWatch(memory=8), torch.ones(6, dtype=torch.bool), torch.ones(6, 5, dtype=torch.bool)
    size = torch.arange(1.0, 7).double()[:, None, None]
    scores, advantages = batch()
    same = scores[:1].expand_as(scores) * size
    for signal, expected in ((size.flatten(), 1.0), (-size.flatten(), -1.0)):
        for _ in range(3):
            found = watch(same, advantages[:1].expand(6, 5), live, counted, signal)
        assert found["rank_correlation"] == pytest.approx(expected, abs=0.01)


def test_a_batch_without_live_groups_says_nothing():
    scores, advantages = batch()
    dead = torch.zeros(6, dtype=torch.bool)
    assert GradientWatch()(scores, advantages, dead, torch.ones(6, 5, dtype=torch.bool), None) == {}
