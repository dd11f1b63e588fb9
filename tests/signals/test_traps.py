"""Where uncertainty signals break: the numerical traps that peers fall into, each with the value it should have."""

import math

import pytest
import scipy.linalg
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from gcpo import signals

NAN = float("nan")
N, ALPHA, T = 16, 1e-3, 0.3


def entropy(*shares):
    return -sum(p * math.log(p) for p in shares if p > 0)


def vectors(*sizes):
    """Groups of equal vectors, orthonormal between groups, whose features sum to 0."""
    directions = torch.tensor(scipy.linalg.hadamard(32)[1:], dtype=torch.float32) / math.sqrt(32)
    return directions.repeat_interleave(torch.tensor([*sizes, *[0] * (31 - len(sizes))]), 0).unsqueeze(0)


def on_embeddings(name):
    return lambda x: getattr(signals, name)(x)


def on_affinity(name, **settings):
    return lambda x: getattr(signals, name)(signals.affinity(x), **settings)


def transport(x):
    return signals.barycentric_transport(x.unsqueeze(2))


def kle(sizes):
    """Heat in a clique of m: exp(-tL) has the eigenvalue 1 once and e = exp(-tm) otherwise."""
    shares = []
    for m in sizes:
        e = math.exp(-T * m)
        diagonal = (1 + (m - 1) * e) / m
        shares += [1 / diagonal / sum(sizes)] + (m - 1) * [e / diagonal / sum(sizes)]
    return entropy(*shares) / math.log(sum(sizes))


def eigen_score(sizes):
    return sum(math.log(m + ALPHA) + (m - 1) * math.log(ALPHA) for m in sizes) / sum(sizes)


def within(sizes):
    """Share of ordered pairs, a response with itself too, that mean the same."""
    return sum(m * m for m in sizes) / sum(sizes) ** 2


def vne(sizes):
    return entropy(*(m / sum(sizes) for m in sizes))


ANSWERS = {
    "cosine_dispersion": (on_embeddings("cosine_dispersion"), lambda s: (1 - within(s)) * N / (N - 1)),
    "barycentric_transport": (transport, lambda s: 1 - within(s)),
    "von_neumann_entropy": (on_embeddings("von_neumann_entropy"), lambda s: vne(s) / math.log(N)),
    "effective_rank": (on_embeddings("effective_rank"), lambda s: math.exp(vne(s))),
    "eigen_score": (on_embeddings("eigen_score"), eigen_score),
    "degree_dispersion": (on_affinity("degree_dispersion"), lambda s: 1 - within(s)),
    "laplacian_eigenvalues": (on_affinity("laplacian_eigenvalues"), len),
    "eccentricity": (on_affinity("eccentricity"), lambda s: math.sqrt(len(s) - 1)),
    "kernel_language_entropy": (on_affinity("kernel_language_entropy"), kle),
}
GEOMETRY = {name: f for name, (f, _) in ANSWERS.items()}
GRAPH = ("degree_dispersion", "laplacian_eigenvalues", "eccentricity", "kernel_language_entropy")


@pytest.mark.parametrize("sizes", [[16], [8, 8], [15, 1], [4, 12], [1] * 16], ids=str)
@pytest.mark.parametrize("name", ANSWERS)
def test_cliques_of_equal_responses(name, sizes):
    value, expected = ANSWERS[name]
    assert value(vectors(*sizes)).item() == pytest.approx(expected(sizes), abs=2e-5, rel=1e-4)


@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.8, 0.95])
def test_two_responses(cosine):
    x = torch.tensor([[[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]]])
    overlap = math.tanh(T * cosine)  # (1 - e) / (1 + e) with e = exp(-2tW)
    expected = {
        "cosine_dispersion": 1 - cosine,
        "barycentric_transport": (1 - cosine) / 2,
        "von_neumann_entropy": entropy((1 + cosine) / 2, (1 - cosine) / 2) / math.log(2),
        "effective_rank": math.exp(entropy((1 + cosine) / 2, (1 - cosine) / 2)),
        "degree_dispersion": (1 - cosine) / 2,
        "laplacian_eigenvalues": 2 / (1 + cosine),
        "eccentricity": float((1 - cosine) / (1 + cosine) > 0.1),
        "kernel_language_entropy": entropy((1 + overlap) / 2, (1 - overlap) / 2) / math.log(2),
    }
    values = {name: GEOMETRY[name](x).item() for name in expected}
    # torch.matrix_exp takes one float32 matrix to 3e-5 only; ours never gives it one alone.
    assert values == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("kernel", ["heat", "matern"])
def test_kernel_language_entropy_has_the_right_sign(kernel):
    # exp(+tL) would have it the other way round: 0.978 for one meaning, 0.968 for two.
    one, two, all_apart = (
        on_affinity("kernel_language_entropy", kernel=kernel)(vectors(*sizes)).item()
        for sizes in ([16], [8, 8], [1] * 16)
    )
    assert one < two < all_apart


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "eigen_score"])
def test_near_duplicates_lie_near_identical_responses_and_not_below(name):
    value, expected = ANSWERS[name]
    x = torch.randn(1, 1, 32) + 1e-4 * torch.randn(8, N, 32)
    assert value(x) == pytest.approx(expected([N]), abs=1e-3)
    assert (value(x) >= expected([N]) - 1e-5).all()


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-3), (torch.float32, 0.5)])
def test_cosine_dispersion_sees_the_last_bit_of_an_embedding(dtype, rtol):
    # One unit in the last place of one entry: 1 - u_i . u_j is 0 in the precision of the input.
    x = torch.ones(1, 8, 64).to(dtype)
    x[0, 0, 0] += torch.finfo(dtype).eps
    exact = signals.cosine_dispersion(x.double())
    assert exact > 0
    torch.testing.assert_close(signals.cosine_dispersion(x).double(), exact, rtol=rtol, atol=0)


@pytest.mark.parametrize("opposed", [torch.tensor([[[1.0, 2.0], [-1.0, -2.0]]]), vectors(1, 1) * torch.ones(1, 2, 1)])
def test_opposed_responses_are_apart_in_a_graph(opposed):
    """W has no negative edges: opposed is unrelated. Uncut cosines give a degree of 0, which peers divide by."""
    u = opposed / opposed.norm(dim=-1, keepdim=True)
    for W in (u @ u.mT, signals.affinity(opposed)):
        values = {name: getattr(signals, name)(W).item() for name in GRAPH}
        assert values == pytest.approx(dict(zip(GRAPH, (0.5, 2.0, 1.0, 1.0), strict=True)), abs=1e-6)


def test_opposed_responses_are_one_direction_to_a_spectrum():
    x = torch.tensor([[[1.0, 2.0], [-1.0, -2.0]]])
    assert signals.cosine_dispersion(x).item() == pytest.approx(2.0)
    assert signals.von_neumann_entropy(x).item() == pytest.approx(0.0, abs=1e-6)
    assert signals.effective_rank(x).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [40.0, 1e4, 1e5])  # lengths from 320 on, whose squares overflow in fp16
@pytest.mark.parametrize("name", GEOMETRY)
def test_long_vectors_have_the_value_they_have_in_double_precision(name, scale, dtype):
    x = (scale * torch.randn(4, 8, 64)).clamp(-6e4, 6e4).to(dtype)
    torch.testing.assert_close(GEOMETRY[name](x).double(), GEOMETRY[name](x.double()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bad", [0.0, NAN, float("inf")])
@pytest.mark.parametrize("name", GEOMETRY)
def test_a_bad_row_in_one_group_is_left_out_there_and_changes_no_bit_elsewhere(name, bad):
    x = torch.randn(4, 6, 8)
    before = GEOMETRY[name](x)
    without = GEOMETRY[name](x[2:3, 1:])
    x[2, 0] = bad
    after = GEOMETRY[name](x)
    torch.testing.assert_close(after[2:3], without, atol=1e-5, rtol=1e-4)
    others = torch.tensor([0, 1, 3])
    assert torch.equal(after[others], before[others])


@pytest.mark.parametrize("entry", [(1, 4), (4, 1)], ids=["upper", "lower"])
@pytest.mark.parametrize("name", GRAPH)
def test_nan_in_the_triangle_that_a_solver_does_not_read_is_seen(name, entry):
    W = signals.affinity(torch.randn(3, 6, 8))
    before = getattr(signals, name)(W)
    kept = getattr(signals, name)(W[1:2][:, [0, 2, 3, 5]][:, :, [0, 2, 3, 5]])
    W[1][entry] = NAN
    after = getattr(signals, name)(W)
    torch.testing.assert_close(after[1:2], kept, atol=1e-5, rtol=1e-4)
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_a_nan_point_does_not_cost_nothing():
    # POT's solver answers 0 to NaN: no disagreement.
    x = torch.randn(2, 4, 3, 8)
    expected = signals.barycentric_transport(x[:, :, 1:])
    x[:, :, 0] = NAN
    torch.testing.assert_close(signals.barycentric_transport(x), expected)


def log_det(x):
    z = x.double() - x.double().mean(-1, keepdim=True)
    return torch.linalg.slogdet(z @ z.mT + ALPHA * torch.eye(x.shape[1])).logabsdet / x.shape[1]


@given(st.integers(2, 12), st.sampled_from([2, 8, 64]), st.sampled_from([0.01, 1.0, 10.0, 1e3]), st.integers(0, 2**31))
@example(2, 2, 10.0, 2837910)  # pivots far above alpha, and an eigenvalue that is alpha
def test_eigen_score_is_the_log_determinant_at_any_size_and_scale(G, D, scale, seed):
    """One call's D is nothing to the next. Single precision may move an eigenvalue by a thousandth of alpha."""
    x = scale * torch.randn(3, G, D, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(signals.eigen_score(x).double(), log_det(x), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(signals.eigen_score(x.double()), log_det(x), atol=1e-6, rtol=1e-6)


def test_eigen_score_depends_on_scale_as_published():
    x = torch.randn(5, 8, 64)
    gain = signals.eigen_score(10 * x) - signals.eigen_score(x)
    assert (gain > 1).all()
    assert (gain < 2 * math.log(10)).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_eigen_score_of_identical_responses(scale):
    expected = (math.log(N * scale**2 + ALPHA) + (N - 1) * math.log(ALPHA)) / N
    assert signals.eigen_score(scale * vectors(N)).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-20, 1e30])
def test_eigen_score_of_lengths_that_cannot_be_squared(scale):
    assert signals.eigen_score(scale * vectors(1, 1)).item() == pytest.approx(math.log(scale**2 + ALPHA), abs=1e-3)


@pytest.mark.parametrize("log_prob", [-760.0, -1e5])
def test_log_probs_beyond_the_range_of_exp(log_prob):
    log_probs, lengths = torch.full((1, 4), log_prob), torch.full((1, 4), 100)
    assert signals.predictive_entropy(log_probs).item() == pytest.approx(-log_prob)
    assert signals.normalized_predictive_entropy(log_probs, lengths).item() == pytest.approx(-log_prob / 100)
    # Three against one: nothing underflows, and nothing is weighted alike instead.
    weights = (log_probs.double() + torch.tensor([[1.0, 1, 1, 3]]).log().double()) - math.log(6)
    labels = torch.tensor([[0, 0, 0, 1]])
    assert signals.semantic_entropy(labels, weights).item() == pytest.approx(math.log(2) / math.log(4))


def test_no_probability_at_all_is_no_value_rather_than_nan():
    labels, log_probs = torch.tensor([[0, 1, 2]]), torch.full((1, 3), -torch.inf)
    assert signals.semantic_entropy(labels, log_probs).item() == 0.0
    assert signals.predictive_entropy(log_probs).item() == 0.0


def test_responses_without_words_are_alike():
    texts = [["", " \n", "", "\t"], ["", "x", "x", ""]]
    assert signals.lexical_dispersion(texts).tolist() == pytest.approx([0.0, 4 / 6])
