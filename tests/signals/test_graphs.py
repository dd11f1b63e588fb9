"""Signals on the graph of a group against graphs whose spectra are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import signals

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 1)


def cliques(sizes):
    """Responses of one clique mean the same, those of two have nothing in common."""
    labels = torch.tensor([k for k, size in enumerate(sizes) for _ in range(size)])
    return (labels.unsqueeze(0) == labels.unsqueeze(1)).double().unsqueeze(0)


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


@given(SIZES)
def test_degree_dispersion_of_cliques(sizes):
    shares = [size / sum(sizes) for size in sizes]
    value = signals.degree_dispersion(cliques(sizes)).item()
    assert value == pytest.approx(1 - sum(p * p for p in shares), abs=1e-9)


@given(SIZES)
def test_laplacian_eigenvalues_count_cliques(sizes):
    assert signals.laplacian_eigenvalues(cliques(sizes)).item() == pytest.approx(len(sizes), abs=1e-9)


@given(st.integers(2, 9), st.floats(0, 1))
def test_laplacian_eigenvalues_of_equally_similar_responses(n, w):
    # The normalised graph has eigenvalues 1 and, n - 1 times, (1 - w) / (1 + (n - 1) w).
    similarity = w + (1 - w) * torch.eye(n, dtype=torch.float64).unsqueeze(0)
    expected = 1 + (n - 1) * (1 - w) / (1 + (n - 1) * w)
    assert signals.laplacian_eigenvalues(similarity).item() == pytest.approx(expected, abs=1e-9)


@given(SIZES)
def test_eccentricity_of_cliques(sizes):
    # The kept eigenvectors are the cliques' indicators, and the constant vector is a combination of them.
    assert signals.eccentricity(cliques(sizes)).item() == pytest.approx(math.sqrt(len(sizes) - 1), abs=1e-6)


@given(SIZES, st.floats(0.05, 3), st.sampled_from(["heat", "matern"]))
def test_kernel_language_entropy_of_cliques(sizes, t, kernel):
    """A clique of m responses has rho-eigenvalues in the ratio of f(0) once and f(m) m - 1 times, and weight m / n."""
    f = (lambda x: math.exp(-t * x)) if kernel == "heat" else (lambda x: 1 / (2 / t**2 + x))
    n, p = sum(sizes), []
    for m in sizes:
        total = f(0) + (m - 1) * f(m)
        p += [m / n * f(0) / total] + (m - 1) * [m / n * f(m) / total]
    value = signals.kernel_language_entropy(cliques(sizes), kernel=kernel, t=t, kappa=t).item()
    assert value == pytest.approx(entropy(p) / math.log(n), abs=1e-9)


def test_matern_kernel_of_higher_order():
    L = torch.tensor([[2.0, -1.0, -1.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)
    similarity = (torch.eye(3) + (L < 0)).double().unsqueeze(0)
    K = torch.linalg.inv(torch.linalg.matrix_power(4 / 0.25 * torch.eye(3, dtype=torch.float64) + L, 2))
    rho = K / (3 * torch.outer(K.diagonal(), K.diagonal()).sqrt())
    expected = entropy(torch.linalg.eigvalsh(rho).tolist()) / math.log(3)
    value = signals.kernel_language_entropy(similarity, kernel="matern", kappa=0.5, nu=2).item()
    assert value == pytest.approx(expected, abs=1e-9)


def test_kernel_language_entropy_says_what_is_wrong_with_its_settings():
    with pytest.raises(ValueError, match="kernel must be 'heat' or 'matern', found 'rbf'"):
        signals.kernel_language_entropy.__wrapped__(torch.eye(2).unsqueeze(0), kernel="rbf")
    with pytest.raises(ValueError, match="must be positive, found t=-1"):
        signals.kernel_language_entropy(torch.eye(2).unsqueeze(0), t=-1.0)


def test_a_similarity_is_made_symmetric_and_loses_negative_edges():
    one_way = torch.tensor([[[1.0, 0.8, -0.5], [0.2, 1.0, 0.0], [-0.5, 0.0, 1.0]]])
    both_ways = torch.tensor([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    for function in (
        signals.degree_dispersion,
        signals.laplacian_eigenvalues,
        signals.eccentricity,
        signals.kernel_language_entropy,
    ):
        assert torch.equal(function(one_way), function(both_ways))


def test_one_similarity_that_is_not_finite_takes_its_pair_out_only():
    similarity = cliques([3, 2])
    similarity[0, 0, 1] = float("nan")
    kept = similarity[:, 2:, 2:]
    for function in (signals.degree_dispersion, signals.laplacian_eigenvalues, signals.kernel_language_entropy):
        torch.testing.assert_close(function(similarity), function(kept))


def test_affinity_is_the_positive_part_of_the_cosine():
    x = torch.tensor([[[2.0, 0.0], [1.0, 1.0], [-3.0, 0.0], [0.0, 0.0]]])
    root = math.sqrt(0.5)
    expected = torch.tensor([[[1, root, 0, 0], [root, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]])
    torch.testing.assert_close(signals.affinity(x), expected)
