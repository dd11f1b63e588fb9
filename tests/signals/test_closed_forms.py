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


@pytest.mark.parametrize(("kind", "n"), [(kind, n) for kind in ("spread", "margin") for n in (2, 5, 8)])
def test_reward_signals_of_a_bernoulli_group(kind, n):
    for k in range(n + 1):
        rewards = torch.tensor([[1.0] * k + [0.0] * (n - k)])
        if kind == "spread":
            assert signals.reward_spread(rewards).item() == (0 < k < n)
        else:
            assert signals.pass_rate_margin(rewards).item() == pytest.approx(2 * min(k, n - k) / n)


def test_reward_signals_are_relative_to_the_range():
    rewards = torch.tensor([[0.0, 10.0, 20.0, 30.0, 40.0]])
    assert signals.reward_spread(rewards, reward_range=80.0).item() == pytest.approx(0.5)
    assert signals.reward_quantile_dispersion(rewards, reward_range=80.0).item() == pytest.approx(0.25)
    assert signals.pass_rate_margin(rewards, threshold=25.0).item() == pytest.approx(0.8)
    for signal in (signals.reward_spread, signals.reward_quantile_dispersion):
        with pytest.raises(ValueError, match="reward_range must be positive, found 0"):
            signal(rewards, reward_range=0.0)


def test_reward_quantile_dispersion_does_not_see_an_outlier():
    calm = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]])
    wild = calm.clone()
    wild[0, -1] = 1e6
    assert torch.equal(signals.reward_quantile_dispersion(wild), signals.reward_quantile_dispersion(calm))


@pytest.mark.parametrize("constant", [0.3, 0.7, 1 / 3, 1000.1])
def test_reward_signals_of_equal_rewards_are_exactly_zero(constant):
    rewards = torch.full((1, 7), constant)
    for signal in (signals.reward_spread, signals.reward_quantile_dispersion, signals.pass_rate_margin):
        assert signal(rewards).item() == 0.0


@given(st.lists(st.integers(0, 9), min_size=2, max_size=9))
def test_semantic_sets_are_counted(labels):
    assert signals.semantic_sets(torch.tensor([labels])).item() == len(set(labels))


def test_predictive_entropy_is_per_response_or_per_token():
    log_probs, lengths = torch.tensor([[-2.0, -4.0, -12.0]]), torch.tensor([[2, 2, 4]])
    assert signals.predictive_entropy(log_probs).item() == pytest.approx(6.0)
    assert signals.normalized_predictive_entropy(log_probs, lengths).item() == pytest.approx(2.0)


def test_a_response_without_tokens_has_no_entropy():
    log_probs, lengths = torch.tensor([[-2.0, -4.0, 0.0]]), torch.tensor([[2, 2, 0]])
    assert signals.normalized_predictive_entropy(log_probs, lengths).item() == pytest.approx(1.5)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 1))
def test_spectral_signals_of_responses_along_some_axes(sizes):
    # n_k responses along axis k: the Gram matrix over n has eigenvalues n_k / n.
    axes = torch.cat([torch.eye(4, dtype=torch.float64)[k : k + 1].expand(m, 4) for k, m in enumerate(sizes)])
    n = sum(sizes)
    expected = -sum(m / n * math.log(m / n) for m in sizes)
    x = (axes * torch.linspace(-2, 3, n).unsqueeze(-1)).unsqueeze(0)  # neither sign nor length matters
    if (x != 0).any(-1).all():
        assert signals.von_neumann_entropy(x, normalize=False).item() == pytest.approx(expected, abs=1e-9)
        assert signals.von_neumann_entropy(x).item() == pytest.approx(expected / math.log(n), abs=1e-9)
        assert signals.effective_rank(x).item() == pytest.approx(math.exp(expected), abs=1e-9)


@given(n=st.integers(2, 7), scale=st.floats(1e-2, 1e3), alpha=st.floats(1e-4, 1))
def test_eigen_score_of_orthogonal_and_of_identical_responses(n, scale, alpha):
    # Rows of a Hadamard matrix but the first are orthogonal, of length sqrt 8 and mean 0.
    H = torch.tensor([[(-1) ** bin(i & j).count("1") for j in range(8)] for i in range(1, 8)], dtype=torch.float32)
    x = (scale * H[:n]).unsqueeze(0)
    square = 8 * scale**2
    assert signals.eigen_score(x, alpha=alpha).item() == pytest.approx(math.log(square + alpha), abs=1e-3)
    identical = x[:, :1].expand(1, n, 8)
    expected = (math.log(n * square + alpha) + (n - 1) * math.log(alpha)) / n
    assert signals.eigen_score(identical, alpha=alpha).item() == pytest.approx(expected, abs=2e-3)


def test_eigen_score_of_vectors_so_long_that_alpha_is_below_their_rounding():
    x = 1e9 * torch.randn(1, 1, 16).expand(1, 4, 16)
    assert signals.eigen_score(x).isfinite().all()


def test_lexical_dispersion_is_rouge_l_of_words_and_signs():
    one = signals.lexical_dispersion([["a b c", "A  c"]]).item()
    assert one == pytest.approx(1 - 2 * 2 / (3 + 2))
    assert signals.lexical_dispersion([["60-36", "60+36"]]).item() == pytest.approx(1 - 2 * 2 / 6)
    assert signals.lexical_dispersion([["a b", "c d"]]).item() == 1.0
    assert signals.lexical_dispersion([["", " "]]).item() == 0.0
    assert signals.lexical_dispersion([["", "a"]]).item() == 1.0


def test_lexical_dispersion_counts_each_pair_of_responses():
    # Pairs: a-a 0, a-b 1, a-b 1.
    assert signals.lexical_dispersion([["a", "a", "b"]]).item() == pytest.approx(2 / 3)


def test_reward_dispersion_of_a_dead_group_has_a_gradient():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 1.0]], requires_grad=True)
    signals.reward_dispersion(rewards).sum().backward()
    assert rewards.grad.isfinite().all()
    assert rewards.grad[0].eq(0).all()
