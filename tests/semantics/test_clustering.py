"""Partitions by connected components, and by the cosine of embeddings."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components as reference

from gcpo.semantics import cluster_by_cosine, connected_components


def same_partition(a, b):
    return torch.equal(a.unsqueeze(-1) == a.unsqueeze(-2), b.unsqueeze(-1) == b.unsqueeze(-2))


@given(st.integers(1, 12), st.floats(0, 0.5), st.integers(0, 2**31))
def test_components_are_those_of_scipy(G, density, seed):
    g = torch.Generator().manual_seed(seed)
    same = torch.rand(3, G, G, generator=g) < density
    labels = connected_components(same)
    for b in range(3):
        _, expected = reference((same[b] & same[b].T).numpy(), directed=False)
        assert same_partition(labels[b], torch.as_tensor(expected))
    first = labels.gather(-1, labels)
    assert torch.equal(first, labels)
    assert (labels <= torch.arange(G)).all()


@pytest.mark.parametrize("G", range(1, 20))
def test_the_longest_chain_is_followed_to_its_end(G):
    chain = torch.diag(torch.ones(G - 1), 1) + torch.diag(torch.ones(G - 1), -1) > 0
    order = torch.randperm(G)
    assert connected_components(chain[order][:, order].unsqueeze(0)).eq(0).all()


@given(st.permutations(range(7)), st.integers(0, 2**31))
def test_the_order_of_responses_does_not_matter(order, seed):
    g = torch.Generator().manual_seed(seed)
    same = torch.rand(1, 7, 7, generator=g) < 0.5
    turned = connected_components(same[:, order][:, :, order])
    assert same_partition(turned, connected_components(same)[:, order])


def test_one_direction_is_not_enough():
    same = torch.tensor([[[1, 1, 1], [0, 1, 1], [0, 1, 1]]]).bool()
    assert connected_components(same).tolist() == [[0, 1, 1]]


def test_a_response_that_does_not_count_joins_nobody():
    chain = torch.tensor([[[1, 1, 0], [1, 1, 1], [0, 1, 1]]]).bool()
    assert connected_components(chain).tolist() == [[0, 0, 0]]
    assert connected_components(chain, torch.tensor([[True, False, True]])).tolist() == [[0, 1, 2]]


def test_identical_embeddings_share_a_label_at_any_threshold():
    x = torch.randn(4, 1, 384).expand(4, 6, 384) * torch.rand(4, 6, 1).add(0.1)
    assert cluster_by_cosine(x, 1.0).eq(0).all()


def test_planted_clusters_are_found():
    centre = torch.eye(3, 64)[torch.tensor([[0, 1, 2, 0, 1, 0]])]
    labels = cluster_by_cosine(centre + 0.02 * torch.randn(1, 6, 64), 0.8)
    assert labels.tolist() == [[0, 1, 2, 0, 1, 0]]


def test_a_high_threshold_splits_and_a_low_one_merges():
    x = torch.randn(2, 8, 16)
    assert cluster_by_cosine(x, 0.999).tolist() == [list(range(8))] * 2
    assert cluster_by_cosine(x, -1.0).eq(0).all()


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_bad_rows_stand_alone_and_leave_the_others_alone(bad):
    x = torch.randn(2, 5, 8)
    expected = cluster_by_cosine(x, 0.2)
    x[0, 2] = bad
    labels = cluster_by_cosine(x, -1.0)
    assert labels[0].tolist() == [0, 0, 2, 0, 0]
    assert torch.equal(cluster_by_cosine(x, 0.2)[1], expected[1])


def test_masked_rows_stand_alone():
    x, mask = torch.ones(1, 4, 8), torch.tensor([[True, True, False, True]])
    assert cluster_by_cosine(x, 0.9, mask).tolist() == [[0, 0, 2, 0]]
