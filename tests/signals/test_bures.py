"""The Bures form of barycentric transport, a benchmark's, against closed forms of Gaussians."""

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import signals

PATH = Path(__file__).parents[2] / "benchmarks" / "barycentre_forms.py"
spec = importlib.util.spec_from_file_location("barycentre_forms", PATH)
forms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(forms)


def bures(x, rounds=30):
    return forms.bures(rounds)(forms.Clouds(x, torch.ones_like(x[..., 0]), torch.full(x.shape[:2], x.shape[2])))


def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ (values.clamp(min=0).sqrt().unsqueeze(-1) * vectors.mT)


@given(st.integers(1, 5), st.integers(2, 7), st.integers(0, 2**31))
def test_two_gaussians_cost_a_quarter_of_their_distance(D, S, seed):
    x = torch.randn(3, 2, S, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mean = x.mean(2)
    a, b = torch.unbind((x - mean.unsqueeze(2)).mT @ (x - mean.unsqueeze(2)) / S, 1)
    half = root(a)
    trace = (a + b - 2 * root(half @ b @ half)).diagonal(dim1=-2, dim2=-1).sum(-1)
    w2 = (mean[:, 0] - mean[:, 1]).square().sum(-1) + trace
    torch.testing.assert_close(bures(x), w2 / 4, atol=1e-6, rtol=1e-6)


def test_of_gaussians_with_common_axes_the_mean_of_deviations_is_the_barycentre():
    deviation, mean = torch.rand(4, 6, 3, dtype=torch.float64) + 0.1, torch.randn(4, 6, 3, dtype=torch.float64)
    axes, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    # Two points on each axis, sqrt(3) deviations from the mean, have that covariance.
    arms = (3**0.5 * deviation.unsqueeze(-1) * torch.eye(3, dtype=torch.float64)) @ axes
    x = mean.unsqueeze(2) + torch.cat([arms, -arms], dim=2)
    expected = sum(v.var(1, correction=0).sum(-1) for v in (deviation, mean))
    torch.testing.assert_close(bures(x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("D", [3, 16])
def test_is_no_larger_than_barycentric_transport(D):
    x = torch.nn.functional.normalize(torch.randn(8, 5, 4, D), dim=-1)
    assert (bures(x) <= signals.barycentric_transport(x) + 1e-5).all()
