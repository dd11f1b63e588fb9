"""Scores of the output layer against autograd, and their sketch against them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import scores
from gcpo.semantics.scores import draw_projection, isometric, score_features, score_features_of_states, score_gram
from gcpo.signals.score_dispersion import score_dispersion
from tests import tiny

B, G, T, V, D = 2, 3, 5, 23, 7
EXACT = draw_projection(V, D, k=V, m=D)


class Batch:
    """States, head, tokens and mask of B groups in float64, some responses cut short, one of them empty."""

    def __init__(self, seed=0, temperature=1.0, bias=False):
        g = torch.Generator().manual_seed(seed)
        self.states = torch.randn(B * G, T, D, generator=g, dtype=torch.float64)
        self.head = torch.randn(V, D, generator=g, dtype=torch.float64)
        self.bias = torch.randn(V, generator=g, dtype=torch.float64) if bias else None
        self.ids = torch.randint(0, V, (B * G, T), generator=g)
        self.mask = torch.arange(T) < torch.tensor([5, 3, 4, 0, 5, 1]).unsqueeze(1)
        self.temperature = temperature

    @property
    def logits(self):
        return torch.nn.functional.linear(self.states, self.head, self.bias)

    def features(self, projection=EXACT):
        return score_features(self.logits, self.states, self.ids, self.mask, projection, self.temperature)

    def gram(self, chunk=1024):
        return score_gram(self.states, self.head, self.ids, self.mask, G, self.temperature, self.bias, chunk)

    def gradients(self):
        """Gradient of each response's log-probability by the head, one backward pass a response."""
        head = self.head.clone().requires_grad_()
        rows = []
        for h, y, keep in zip(self.states, self.ids, self.mask, strict=True):
            z = torch.nn.functional.linear(h[keep], head, self.bias) / self.temperature
            log_prob = z.log_softmax(-1).gather(-1, y[keep].unsqueeze(-1)).sum()
            rows.append(torch.autograd.grad(log_prob, head)[0].flatten())
        return torch.stack(rows)


def inner(features):
    grouped = features.unflatten(0, (-1, G))
    return grouped @ grouped.mT


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("bias", [False, True])
class TestAgainstAutograd:
    def test_the_gram_matrix_is_that_of_the_gradients(self, temperature, bias):
        batch = Batch(temperature=temperature, bias=bias)
        torch.testing.assert_close(batch.gram(), inner(batch.gradients()), rtol=1e-9, atol=1e-9)

    def test_features_without_a_loss_have_the_inner_products_of_the_gradients(self, temperature, bias):
        batch = Batch(temperature=temperature, bias=bias)
        torch.testing.assert_close(inner(batch.features()[0]), inner(batch.gradients()), rtol=1e-9, atol=1e-9)

    def test_a_fold_is_the_product_with_its_matrices(self, temperature, bias):
        batch, projection = Batch(temperature=temperature, bias=bias), draw_projection(V, D, k=4, m=3)
        R, Q = (fold.apply(torch.eye(n, dtype=torch.float64)) for fold, n in zip(projection, (V, D), strict=True))
        expected = R.T @ batch.gradients().view(-1, V, D) @ Q
        torch.testing.assert_close(batch.features(projection)[0], expected.flatten(1), rtol=1e-9, atol=1e-9)

    def test_log_probabilities_are_those_of_the_responses(self, temperature, bias):
        batch = Batch(temperature=temperature, bias=bias)
        log_p = (batch.logits / temperature).log_softmax(-1).gather(-1, batch.ids.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(batch.features()[1], (log_p * batch.mask).sum(-1))

    def test_states_alone_give_the_same_features(self, temperature, bias):
        batch, projection = Batch(temperature=temperature, bias=bias), draw_projection(V, D, k=4, m=3)
        alone = score_features_of_states(
            batch.states, batch.head, batch.ids, batch.mask, projection, temperature, batch.bias
        )
        torch.testing.assert_close(alone, batch.features(projection))


@given(st.integers(1, 2 * V))
def test_the_chunk_does_not_matter_to_the_gram_matrix(chunk):
    torch.testing.assert_close(Batch().gram(chunk), Batch().gram(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, V, 2 * V, T * V, 2 * T * V, 10**6])
def test_the_block_does_not_matter_to_the_features(size, monkeypatch):
    batch, projection = Batch(), draw_projection(V, D, k=6, m=4)
    expected = batch.features(projection)
    monkeypatch.setattr(scores, "_IN_CACHE", size)
    torch.testing.assert_close(batch.features(projection), expected)


def test_what_the_mask_leaves_out_is_as_good_as_absent():
    batch = Batch()
    features, log_probs = batch.features()
    gram = batch.gram()
    logits = batch.logits.masked_fill(~batch.mask.unsqueeze(-1), torch.nan)
    batch.states[~batch.mask] = torch.nan
    batch.ids[~batch.mask] = -100
    torch.testing.assert_close(batch.gram(), gram)
    again = score_features(logits, batch.states, batch.ids, batch.mask, EXACT)
    torch.testing.assert_close(again, (features, log_probs))
    short = (x[1:2, :3] for x in (logits, batch.states, batch.ids, batch.mask))
    torch.testing.assert_close(score_features(*short, EXACT), (features[1:2], log_probs[1:2]))
    assert features[3].eq(0).all()
    assert log_probs[3].item() == 0


def test_a_bad_token_spoils_its_own_response_only():
    batch = Batch()
    before, gram = batch.features()[0], batch.gram()
    batch.states[1, 0, 0] = torch.nan
    after, spoilt = batch.features()[0], isometric(batch.gram())
    assert torch.equal(after[[0, 2, 3, 4, 5]], before[[0, 2, 3, 4, 5]])
    assert not after[1].isfinite().all()
    assert spoilt[0, 1].isnan().all()
    kept = torch.tensor([0, 2])
    torch.testing.assert_close((spoilt @ spoilt.mT)[0][kept][:, kept], gram[0][kept][:, kept])
    torch.testing.assert_close(spoilt[1] @ spoilt[1].T, gram[1])
    assert score_dispersion(spoilt).isfinite().all()


def test_the_sketch_is_right_on_average():
    batch, seeds = Batch(), 1000
    drawn = [inner(batch.features(draw_projection(V, D, k=5, m=3, seed=seed))[0]) for seed in range(seeds)]
    mean, spread = torch.stack(drawn).mean(0), torch.stack(drawn).std(0)
    assert ((mean - batch.gram()).abs() <= 4.5 * spread / seeds**0.5 + 1e-9).all()
    assert spread.max() > 0.1


def test_the_error_of_the_sketch_falls_with_its_size():
    batch, seeds = Batch(), 100

    def error(k, m):
        drawn = [inner(batch.features(draw_projection(V, D, k, m, seed))[0]) for seed in range(seeds)]
        return (torch.stack(drawn) - batch.gram()).square().mean().sqrt().item()

    errors = [error(2, 1), error(4, 2), error(8, 4), error(16, 6), error(V, D)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_signs_depend_on_the_seed_alone():
    a, b, other = (draw_projection(V, D, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(a.tokens.signs, b.tokens.signs)
    assert torch.equal(a.states.signs, b.states.signs)
    assert not torch.equal(a.tokens.signs, other.tokens.signs)
    assert a.tokens.signs.abs().eq(1).all()


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_isometric_features_have_the_given_inner_products(rank, seed):
    x = torch.randn(4, 5, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gram = x @ x.mT
    features = isometric(gram)
    torch.testing.assert_close(features @ features.mT, gram)
    torch.testing.assert_close(score_dispersion(features), score_dispersion(x))


def test_half_precision_logits_are_worked_on_in_single_precision():
    batch, projection = Batch(), draw_projection(V, D, k=6, m=4)
    logits, states = batch.logits.bfloat16(), batch.states.bfloat16()
    given = logits.clone()
    features, log_probs = score_features(logits, states, batch.ids, batch.mask, projection)
    expected = score_features(logits.float(), states.float(), batch.ids, batch.mask, projection)
    assert features.dtype == log_probs.dtype == torch.float32
    torch.testing.assert_close((features, log_probs), expected)
    assert torch.equal(logits, given)


def test_improbable_tokens_keep_their_log_probability():
    # exp(-200) is 0 in single precision.
    logits, ids = torch.tensor([[[0.0, -200.0]]]), torch.tensor([[1]])
    states, mask = torch.ones(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    features, log_probs = score_features(logits, states, ids, mask, draw_projection(2, 1))
    assert log_probs.item() == pytest.approx(-200)
    assert features.abs().tolist() == [[1.0, 1.0]]


def test_an_uneven_number_of_responses_is_named():
    batch = Batch()
    with pytest.raises(ValueError, match="groups of 4, found 6"):
        score_gram(batch.states, batch.head, batch.ids, batch.mask, 4)


def test_a_transformers_model_with_an_untied_head():
    model = tiny.model().double().eval()
    prompt, length = 4, 6
    ids = torch.randint(1, model.config.vocab_size, (3, prompt + length))
    taken = []
    handle = model.lm_head.register_forward_pre_hook(lambda _, args: taken.append(args[0]))
    logits = model(input_ids=ids, logits_to_keep=length + 1).logits[:, :-1]
    handle.remove()
    y, mask = ids[:, prompt:], torch.ones(3, length, dtype=torch.bool)
    log_probs = logits.log_softmax(-1).gather(-1, y.unsqueeze(-1)).sum((1, 2))
    gradients = [torch.autograd.grad(lp, model.lm_head.weight, retain_graph=True)[0].flatten() for lp in log_probs]
    states = taken[0][:, :-1].detach()
    exact = torch.stack(gradients)
    torch.testing.assert_close(
        score_gram(states, model.lm_head.weight, y, mask, 3)[0], exact @ exact.T, rtol=1e-9, atol=0
    )
    V, D = model.lm_head.weight.shape
    features, total = score_features(logits, states, y, mask, draw_projection(V, D, k=V, m=D))
    torch.testing.assert_close(features @ features.T, exact @ exact.T, rtol=1e-9, atol=0)
    torch.testing.assert_close(total, log_probs)
