"""Parity with POT where the barycentre is known: of single points it is their mean."""

import numpy as np
import ot
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import signals


@given(st.integers(2, 9), st.integers(1, 24), st.sampled_from([0.01, 0.3, 3.0]), st.integers(0, 2**31))
def test_single_points_cost_emd2_to_the_dirac_at_their_mean(G, D, spread, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 1, D, generator=g) + spread * torch.randn(3, G, D, generator=g)
    mask = torch.rand(3, G, generator=g) < 0.8
    mask[:, :2] = True

    def cost(group):
        unit = group / np.linalg.norm(group, axis=-1, keepdims=True)
        return ot.emd2(ot.unif(len(unit)), np.ones(1), ot.dist(unit, unit.mean(0, keepdims=True)))

    expected = torch.tensor([cost(group[kept].double().numpy()) for group, kept in zip(x, mask, strict=True)])
    value = signals.barycentric_transport(x.unsqueeze(2), mask=mask)
    torch.testing.assert_close(value.double(), expected.double(), atol=1e-5, rtol=1e-5)
