"""Signals against answers known on paper, and the numerical traps of their kind."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import signals

PASS_RATES = [(k, n) for n in (2, 4, 8, 16) for k in range(n + 1)]


@pytest.mark.parametrize(("k", "n"), PASS_RATES)
def test_reward_dispersion_of_a_bernoulli_group(k, n):
    rewards = torch.tensor([[1.0] * k + [0.0] * (n - k)])
    p = k / n
    assert signals.reward_dispersion(rewards).item() == pytest.approx(2 * math.sqrt(p * (1 - p)), abs=1e-6)


@pytest.mark.parametrize("constant", [0.3, 0.7, 1 / 3, 1000.1])
def test_reward_dispersion_of_equal_rewards_is_exactly_zero(constant):
    assert signals.reward_dispersion(torch.full((1, 8), constant)).item() == 0.0


def test_reward_dispersion_is_relative_to_the_range():
    rewards = torch.tensor([[0.0, 10.0]])
    assert signals.reward_dispersion(rewards, reward_range=10.0).item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="reward_range must be positive, found 0"):
        signals.reward_dispersion(rewards, reward_range=0.0)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_semantic_entropy_of_clusters_of_given_sizes(sizes):
    labels = torch.tensor([[k for k, size in enumerate(sizes) for _ in range(size)]])
    n = sum(sizes)
    expected = -sum(s / n * math.log(s / n) for s in sizes)
    assert signals.semantic_entropy(labels, normalize=False).item() == pytest.approx(expected, abs=1e-6)
    if n > 1:
        assert signals.semantic_entropy(labels).item() == pytest.approx(expected / math.log(n), abs=1e-6)


def test_semantic_entropy_counts_a_cluster_once():
    # Summed over responses, two clusters of eight would give 5.545.
    labels = torch.tensor([[0] * 8 + [1] * 8])
    assert signals.semantic_entropy(labels, normalize=False).item() == pytest.approx(math.log(2), abs=1e-6)


def test_semantic_entropy_of_one_meaning_is_zero_also_with_long_log_probs():
    labels = torch.zeros(1, 16, dtype=torch.long)
    for log_prob in (-0.5, -760.0, -1e5):
        assert signals.semantic_entropy(labels, torch.full((1, 16), log_prob)).item() == 0.0


def test_rao_entropy_weighs_meanings_by_probability():
    labels, log_probs = torch.tensor([[0, 0, 1]]), torch.tensor([[0.2, 0.3, 0.5]]).log() - 900
    assert signals.semantic_entropy(labels, log_probs, normalize=False).item() == pytest.approx(math.log(2), abs=1e-4)


def test_rao_entropy_with_equal_probabilities_is_the_discrete_one():
    labels = torch.randint(0, 4, (5, 8))
    rao = signals.semantic_entropy(labels, torch.full((5, 8), -3.0))
    torch.testing.assert_close(rao, signals.semantic_entropy(labels))


def test_rao_entropy_leaves_out_a_response_without_log_prob():
    labels = torch.tensor([[0, 1, 2]])
    log_probs = torch.tensor([[-1.0, -1.0, float("nan")]])
    assert signals.semantic_entropy(labels, log_probs).item() == pytest.approx(1.0)
    assert signals.semantic_entropy(labels, torch.full((1, 3), float("nan"))).item() == 0.0


@given(n=st.integers(2, 9), scale=st.floats(1e-3, 1e3))
def test_cosine_dispersion_of_orthonormal_vectors_is_one(n, scale):
    embeddings = scale * torch.eye(n).unsqueeze(0)
    assert signals.cosine_dispersion(embeddings).item() == pytest.approx(1.0, abs=1e-5)


def test_cosine_dispersion_of_antipodal_vectors_is_its_upper_bound():
    x = torch.randn(1, 1, 8)
    for n in (1, 2, 5):
        value = signals.cosine_dispersion(torch.cat([x, -x] * n, dim=1)).item()
        assert value == pytest.approx(2 * n / (2 * n - 1), abs=1e-5)


@given(st.integers(2, 8), st.integers(1, 16), st.integers(0, 2**31))
def test_cosine_dispersion_is_the_mean_pairwise_cosine_distance(G, D, seed):
    x = torch.randn(1, G, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u = x / x.norm(dim=-1, keepdim=True)
    pairs = [1 - u[0, i] @ u[0, j] for i in range(G) for j in range(i)]
    torch.testing.assert_close(signals.cosine_dispersion(x), torch.stack(pairs).mean().unsqueeze(0))


def test_cosine_dispersion_keeps_near_duplicates_apart():
    # 1 - u_i . u_j rounds to 0 here.
    x = torch.tensor([[[1.0, 0.0], [1.0, 1.4e-4]]])
    assert signals.cosine_dispersion(x).item() == pytest.approx(9.8e-9, rel=1e-3)


def test_cosine_dispersion_of_large_half_precision_vectors_does_not_overflow():
    x = torch.randn(1, 8, 64)
    expected = signals.cosine_dispersion(x).item()
    assert signals.cosine_dispersion((x * 1000).half()).item() == pytest.approx(expected, abs=1e-2)
