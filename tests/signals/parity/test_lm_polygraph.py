"""Parity with lm-polygraph 0.7.0, which computes in double precision; requirements.txt says how to install it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo import signals

pytest.importorskip("lm_polygraph")

import scipy.linalg
from lm_polygraph import estimators
from lm_polygraph.estimators.kernel_language_entropy import heat_kernel, laplacian_matrix, vn_entropy

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:Casting complex values"),  # of its KLE, on repeated eigenvalues
]

SEEDS = st.integers(0, 2**31)
SIZES = st.tuples(st.integers(1, 4), st.integers(2, 9), st.integers(1, 24))


def close(ours, theirs):
    torch.testing.assert_close(ours.double(), torch.as_tensor(np.asarray(theirs)), atol=1e-5, rtol=1e-5)


@st.composite
def embeddings(draw):
    """Clusters of vectors, some of them equal."""
    B, G, D = draw(SIZES)
    g = torch.Generator().manual_seed(draw(SEEDS))
    clusters = torch.randn(B, 1, 3, D, generator=g).expand(-1, G, -1, -1)
    chosen = torch.randint(0, 3, (B, G, 1, 1), generator=g).expand(-1, -1, -1, D)
    noise = draw(st.sampled_from([0.0, 0.1, 1.0])) * torch.randn(B, G, D, generator=g)
    return clusters.gather(2, chosen).squeeze(2) + noise


@st.composite
def similarities(draw):
    """NLI probabilities: 1 on the diagonal, not symmetric, not positive definite; or cosines of embeddings."""
    if draw(st.booleans()):
        return signals.affinity(draw(embeddings()))
    B, G, _ = draw(SIZES)
    W = torch.rand(B, G, G, generator=torch.Generator().manual_seed(draw(SEEDS))) ** draw(st.sampled_from([0.2, 1, 5]))
    return W - torch.diag_embed(W.diagonal(dim1=-2, dim2=-1) - 1)


@st.composite
def labels(draw):
    B, G, K = draw(SIZES)
    return torch.randint(0, K, (B, G), generator=torch.Generator().manual_seed(draw(SEEDS)))


def estimate(name, W, **settings):
    """A graph estimator of lm-polygraph on W; without contradictions, KLE's graph is E + E^T - 1 + 1 = 2 W."""
    W = W.double().numpy()
    texts = [[""] * W.shape[1]] * W.shape[0]
    stats = {"semantic_matrix_entail": W, "semantic_matrix_contra": np.ones_like(W), "sample_texts": texts}
    return getattr(estimators, name)(**settings)(stats)


@given(similarities())
def test_degree_dispersion_is_deg_mat(W):
    close(signals.degree_dispersion(W), estimate("DegMat", W))


@given(similarities())
def test_laplacian_eigenvalues_are_eig_val_laplacian(W):
    close(signals.laplacian_eigenvalues(W), estimate("EigValLaplacian", W))


@given(similarities(), st.sampled_from([0.5, 0.9, 0.99]))
def test_eccentricity_is_eccentricity(W, threshold):
    close(signals.eccentricity(W, threshold=threshold), estimate("Eccentricity", W, thres=threshold))


@given(similarities(), st.sampled_from([0.1, 0.3, 1.0]))
def test_kernel_language_entropy_is_kernel_language_entropy(W, t):
    close(signals.kernel_language_entropy(W, t=t), estimate("KernelLanguageEntropy", W, t=t))


@given(similarities(), st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 3))
def test_matern_kernel_is_the_power_of_the_papers_code(W, kappa, nu):
    """lm-polygraph has no Matern kernel: the authors' formula by scipy, and lm-polygraph's entropy."""
    symmetric = ((W + W.mT) / 2).double().numpy()
    shifted = [2 * nu / kappa**2 * np.eye(len(w)) + laplacian_matrix(w) for w in symmetric]
    kernels = [scipy.linalg.fractional_matrix_power(s, -nu) for s in shifted]
    entropies = [vn_entropy(k, normalize=True, scale=True, jitter=0) for k in kernels]
    close(signals.kernel_language_entropy(W, kernel="matern", kappa=kappa, nu=nu), entropies)


def test_lm_polygraphs_laplacian_had_the_other_sign_until_0_5():
    """W - D instead of D - W, and exp(+t L): identical responses are then more uncertain than two meanings."""
    one, two = torch.ones(16, 16), torch.block_diag(torch.ones(8, 8), torch.ones(8, 8))
    right = [estimate("KernelLanguageEntropy", W.unsqueeze(0))[0] for W in (one, two)]
    old = [vn_entropy(heat_kernel(-laplacian_matrix(W.double().numpy()), 0.3), True, True, 0) for W in (one, two)]
    assert right == pytest.approx([0.2322, 0.7635], abs=1e-4)
    assert old == pytest.approx([0.9779, 0.9676], abs=1e-4)
    close(signals.kernel_language_entropy(torch.stack([one, two]), t=0.3), right)


@given(embeddings(), st.sampled_from([1e-2, 1.0, 30.0]), st.sampled_from([1e-3, 1e-1]))
def test_eigen_score_is_eigen_score(x, scale, alpha):
    x = x.double() * scale
    theirs = estimators.EigenScore(alpha=alpha)({"sample_embeddings": x.numpy()})
    close(signals.eigen_score(x, alpha=alpha), theirs)


def classes(group):
    order = list(dict.fromkeys(group))
    members = [[i for i, k in enumerate(group) if k == label] for label in order]
    return [order.index(k) for k in group], members


def semantic_entropy(labels, **settings):
    tables = [classes(group) for group in labels.tolist()]
    stats = {
        "sample_texts": [[str(k) for k in group] for group in labels.tolist()],
        "semantic_classes_entail": {
            "sample_to_class": [of for of, _ in tables],
            "class_to_sample": [members for _, members in tables],
        },
    }
    return estimators.SemanticEntropy(class_probability_estimation="frequency", **settings)(stats)


@given(labels())
def test_semantic_entropy_in_nats_is_the_frequency_form(labels):
    close(signals.semantic_entropy(labels, normalize=False), semantic_entropy(labels))


def test_the_direct_form_counts_a_class_once_per_response():
    labels = torch.tensor([[0] * 8 + [1] * 8])
    assert semantic_entropy(labels, entropy_estimation="direct") == pytest.approx(8 * math.log(2))
    close(signals.semantic_entropy(labels, normalize=False), [math.log(2)])


@given(labels())
def test_semantic_sets_are_num_sem_sets(labels):
    entails = (labels.unsqueeze(-1) == labels.unsqueeze(-2)).double().numpy()
    stats = {"semantic_matrix_entail": entails, "semantic_matrix_contra": 1 - entails, "sample_texts": labels.tolist()}
    close(signals.semantic_sets(labels), estimators.NumSemSets()(stats))


@given(SIZES, SEEDS)
def test_predictive_entropies_are_monte_carlo_entropies(sizes, seed):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 50, sizes[:2], generator=g)
    log_probs = -lengths * torch.rand(sizes[:2], generator=g)
    stats = {"sample_log_probs": log_probs.tolist(), "sample_tokens": [[[0] * n for n in row] for row in lengths]}
    close(signals.predictive_entropy(log_probs), estimators.MonteCarloSequenceEntropy()(stats))
    theirs = estimators.MonteCarloNormalizedSequenceEntropy()(stats)
    close(signals.normalized_predictive_entropy(log_probs, lengths), theirs)
