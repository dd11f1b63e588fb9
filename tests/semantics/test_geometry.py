"""From hidden states to embeddings, points and maps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import plane, pool, pool_steps, step_index
from gcpo.semantics.policy import backbone_of, forward
from tests import tiny


def lengths_mask(lengths, T):
    return torch.arange(T) < torch.tensor(lengths).unsqueeze(1)


def test_pool_is_the_mean_over_the_tokens_that_count():
    states, mask = torch.randn(3, 5, 4), lengths_mask([5, 2, 0], 5)
    pooled = pool(states, mask)
    torch.testing.assert_close(pooled[:2], torch.stack([states[0].mean(0), states[1, :2].mean(0)]))
    assert pooled[2].eq(0).all()


def test_padding_with_nan_does_not_leak():
    states, mask = torch.randn(1, 4, 2), lengths_mask([2], 4)
    states[:, 2:] = float("nan")
    assert pool(states, mask).isfinite().all()


def test_points_are_the_means_of_their_steps():
    states, mask = torch.randn(1, 6, 4), lengths_mask([5], 6)
    ends = torch.tensor([[False, True, False, False, True, True]])
    steps = step_index(ends, mask, max_steps=4)
    assert steps[0, :5].tolist() == [0, 0, 1, 1, 1]
    points, point_mask = pool_steps(states, steps, mask, max_steps=4)
    assert point_mask.tolist() == [[True, True, False, False]]
    torch.testing.assert_close(points[0, :2], torch.stack([states[0, :2].mean(0), states[0, 2:5].mean(0)]))


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**31))
def test_steps_rise_from_zero_one_at_a_time_and_stay_below_the_limit(T, limit, seed):
    g = torch.Generator().manual_seed(seed)
    ends, mask = torch.rand(3, T, generator=g) < 0.4, torch.ones(3, T, dtype=torch.bool)
    steps = step_index(ends, mask, limit)
    assert steps[:, 0].eq(0).all()
    assert ((steps.diff() == 0) | (steps.diff() == 1)).all()
    assert steps.max() < limit
    total = ends[:, :-1].sum(1) + 1
    assert torch.equal(steps[:, -1] + 1, total.clamp(max=limit))


def test_plane_keeps_distances_of_a_flat_group():
    x = torch.randn(2, 6, 2) @ torch.linalg.qr(torch.randn(9, 9))[0][:2]
    u = x / x.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(torch.cdist(plane(x), plane(x)), torch.cdist(u, u), atol=1e-4, rtol=1e-3)


def test_plane_of_few_or_bad_embeddings_has_its_shape():
    assert plane(torch.randn(1, 1, 4)).shape == (1, 1, 2)
    x = torch.randn(1, 4, 3)
    x[0, 1] = float("nan")
    assert plane(x).isfinite().all()


def test_policy_states_are_those_of_the_model_and_leave_it_as_it_was():
    model = tiny.model().train()
    ids = torch.randint(3, 90, (2, 7))
    before = torch.get_rng_state()
    states = forward(model, backbone_of(model), ids, torch.ones_like(ids))[0]
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        expected = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(states, expected)


def test_padding_does_not_move_policy_states():
    model = tiny.model()
    ids = torch.randint(3, 90, (1, 6))
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = torch.tensor([[0] * 3 + [1] * 6])
    alone = forward(model, backbone_of(model), ids, torch.ones_like(ids))[0]
    torch.testing.assert_close(forward(model, backbone_of(model), padded, mask)[0][:, 3:], alone)


def test_a_decoder_inside_the_base_model_is_found():
    from transformers import OPTConfig, OPTForCausalLM

    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=64,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            ffn_dim=16,
            word_embed_proj_dim=16,
        )
    )
    ids = torch.randint(3, 60, (2, 5))
    assert forward(model, backbone_of(model), ids, torch.ones_like(ids))[0].shape == (2, 5, 16)


def test_a_model_that_gives_no_states_says_so():
    class Bare(torch.nn.Module):
        def forward(self, **_):
            return None

    with pytest.raises(RuntimeError, match="gave no hidden states: set gcpo_embedder"):
        forward(Bare(), torch.nn.Linear(1, 1), torch.zeros(1, 1).long(), torch.ones(1, 1).long())
