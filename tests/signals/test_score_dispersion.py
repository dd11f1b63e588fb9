"""Score dispersion against the covariance itself, and at the edges of its dtype."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.signals.score_dispersion import score_dispersion, weighted_score_dispersion

BIG = torch.finfo(torch.float32).max


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 2**31))
def test_it_is_the_trace_of_the_sample_covariance(G, F, seed):
    x, a = draw(seed, 3, G, F), draw(seed + 1, 3, G)
    trace = torch.stack([torch.cov(group.T).reshape(F, F).trace() for group in x])
    torch.testing.assert_close(score_dispersion(x), trace)
    weighted = torch.stack([torch.cov(group.T).reshape(F, F).trace() for group in a.unsqueeze(-1) * x])
    torch.testing.assert_close(weighted_score_dispersion(x, a), weighted)


@given(st.integers(2, 9), st.integers(0, 2**31))
def test_it_is_half_the_mean_squared_distance_of_pairs(G, seed):
    x = draw(seed, 1, G, 5)
    pairs = [(x[0, i] - x[0, j]).square().sum() / 2 for i in range(G) for j in range(i)]
    torch.testing.assert_close(score_dispersion(x), torch.stack(pairs).mean().unsqueeze(0))


def test_a_score_of_zero_is_a_score():
    x = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    assert score_dispersion(x).item() == pytest.approx(2)
    assert weighted_score_dispersion(torch.ones(1, 2, 1), torch.tensor([[0.0, 2.0]])).item() == pytest.approx(2)


def test_a_common_offset_does_not_matter_and_does_not_hide_near_duplicates():
    x = draw(0, 2, 4, 3)
    torch.testing.assert_close(score_dispersion(x + 5), score_dispersion(x))
    near = 1 + 1e-6 * x
    torch.testing.assert_close(score_dispersion(near), 1e-12 * score_dispersion(x), rtol=1e-6, atol=0)


def test_equal_advantages_scale_it_by_their_square():
    x = draw(0, 2, 4, 3)
    a = torch.full((2, 4), -3.0, dtype=torch.float64)
    torch.testing.assert_close(weighted_score_dispersion(x, a), 9 * score_dispersion(x))
    assert weighted_score_dispersion(x, 0 * a).eq(0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_left_out(bad):
    x, a = draw(0, 2, 5, 3), draw(1, 2, 5)
    spoilt, kept = x.clone(), [0, 2, 3, 4]
    spoilt[0, 1, 2] = bad
    assert score_dispersion(spoilt)[0] == score_dispersion(x[:, kept])[0]
    assert score_dispersion(spoilt)[1] == score_dispersion(x)[1]
    hurt = a.clone()
    hurt[0, 1] = bad
    for scores, advantages in ((spoilt, a), (x, hurt), (spoilt, hurt)):
        value = weighted_score_dispersion(scores, advantages)
        torch.testing.assert_close(value[0], weighted_score_dispersion(x[:, kept], a[:, kept])[0])
        assert value[1] == weighted_score_dispersion(x, a)[1]


def test_fewer_than_two_responses_give_zero():
    x, a = draw(0, 3, 4, 2), draw(1, 3, 4)
    mask = torch.tensor([[True, False, False, False], [False] * 4, [True, True, False, False]])
    for value in (score_dispersion(x, mask), weighted_score_dispersion(x, a, mask)):
        assert value[:2].eq(0).all()
        assert value[2] > 0
    assert score_dispersion(x[:, :1]).eq(0).all()
    torch.testing.assert_close(score_dispersion(x, mask)[2], score_dispersion(x[:, :2])[2])


def test_what_exceeds_the_dtype_is_its_largest_number_and_has_a_finite_gradient():
    x, a = draw(0, 3, 4, 2).float(), torch.ones(3, 4)
    plain = score_dispersion(x)
    x[0] = 1e19 * torch.tensor([1.0, -1.0, 1.0, -1.0]).unsqueeze(-1)
    x[1, 0], a[1, 1] = 3e38, 1e20
    x.requires_grad_()
    a.requires_grad_()
    value, weighted = score_dispersion(x), weighted_score_dispersion(x, a)
    assert value[0].item() == pytest.approx(BIG / 3, rel=1e-5)
    torch.testing.assert_close(value[1], score_dispersion(x[:, 1:])[1])
    torch.testing.assert_close(weighted[1], score_dispersion(x[:, 2:])[1])
    assert torch.equal(value[2], plain[2])
    (value + weighted).sum().backward()
    assert x.grad.isfinite().all()
    assert a.grad.isfinite().all()


def test_many_features_lose_no_precision():
    x = draw(0, 2, 8, 50_000) + 3
    torch.testing.assert_close(score_dispersion(x.float()).double(), score_dispersion(x), rtol=1e-5, atol=0)


def test_gradients_are_right_and_none_reaches_what_is_left_out():
    x, a = draw(0, 2, 4, 3).requires_grad_(), draw(1, 2, 4).requires_grad_()
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    assert torch.autograd.gradcheck(score_dispersion, (x, mask))
    assert torch.autograd.gradcheck(weighted_score_dispersion, (x, a, mask))
    bad = x.detach().clone()
    bad[0, 0, 1] = torch.nan
    bad.requires_grad_()
    (score_dispersion(bad) + weighted_score_dispersion(bad, a)).sum().backward()
    assert bad.grad[0, 0].eq(0).all()
    assert bad.grad.isfinite().all()
    assert a.grad[0, 0] == 0
    assert a.grad.isfinite().all()


def test_dtypes():
    x = draw(0, 2, 4, 3)
    a = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 0]])
    assert score_dispersion(x).dtype == torch.float64
    for half in (torch.float16, torch.bfloat16):
        assert score_dispersion(x.to(half)).dtype == torch.float32
        torch.testing.assert_close(score_dispersion(x.to(half)), score_dispersion(x.to(half).float()))
    assert weighted_score_dispersion(x.half(), a).dtype == torch.float32
    large = torch.full((1, 2, 1), 300.0, dtype=torch.float16)
    large[0, 1] = -300
    assert score_dispersion(large).item() == pytest.approx(180_000)
