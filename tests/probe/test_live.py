"""The gradient's noise during training, against definitions by hand and against autograd."""

import pytest
import torch

from gcpo.probe import ResponseGradients, live, weighted_variance
from gcpo.probe.live import GradientTap, GradientWatch
from tests import tiny


def batch(B=6, G=5, F=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, G, F, generator=g, dtype=torch.float64)


def test_variance_and_signal_to_noise_by_hand():
    shares = batch()
    alive = torch.tensor([True, True, False, True, True, True])
    counted = torch.ones(6, 5, dtype=torch.bool)
    counted[0, 4] = False
    found, each = GradientWatch()(shares, alive, counted, None)
    variance, square, noise = torch.zeros(6, dtype=torch.float64), 0.0, 0.0
    for b in range(6):
        if alive[b]:
            g = shares[b][counted[b]]
            variance[b] = g.var(0).sum()
            noise += variance[b] / len(g)
            square += g.mean(0).square().sum() - variance[b] / len(g)  # the bias of |mean|^2 is the mean's variance
    torch.testing.assert_close(each, variance)
    assert found["variance"] == pytest.approx(variance[alive].mean().item())
    assert found["snr"] == pytest.approx((square / noise).item())
    assert "rank_correlation" not in found


def test_the_running_correlation_is_over_the_groups_seen_lately():
    watch, alive, counted = (
        GradientWatch(memory=8),
        torch.ones(6, dtype=torch.bool),
        torch.ones(6, 5, dtype=torch.bool),
    )
    size = torch.arange(1.0, 7).double()[:, None, None]
    same = batch()[:1].expand(6, 5, 4) * size
    for signal, expected in ((size.flatten(), 1.0), (-size.flatten(), -1.0)):
        for _ in range(3):
            found, _ = watch(same, alive, counted, signal)
        assert found["rank_correlation"] == pytest.approx(expected, abs=0.01)


def test_a_batch_without_live_groups_says_nothing():
    dead = torch.zeros(6, dtype=torch.bool)
    found, variance = GradientWatch()(batch(), dead, torch.ones(6, 5, dtype=torch.bool), None)
    assert found == {}
    assert torch.equal(variance, torch.zeros(6, dtype=torch.float64))


def test_a_step_that_overflows_says_nothing_and_spoils_nothing_later():
    watch, alive, counted = GradientWatch(), torch.ones(6, dtype=torch.bool), torch.ones(6, 5, dtype=torch.bool)
    signal = torch.arange(6.0)
    assert watch(torch.full((6, 5, 4), torch.inf), alive, counted, signal)[0] == {}
    whole, _ = watch(batch(), alive, counted, signal)
    assert len(watch.seen) == 6
    some = batch()
    some[2, 1] = torch.nan
    found, _ = GradientWatch()(some, alive, counted, signal.masked_fill(signal == 0, torch.nan))
    counted[2, 1] = False
    expected, _ = GradientWatch()(batch(), alive, counted, None)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert -1 <= found["rank_correlation"] <= 1
    assert -1 <= whole["rank_correlation"] <= 1


def loss_of(model, ids):
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).sum((1, 2)) / len(ids)


@pytest.mark.parametrize("checkpointing", [None, True, False], ids=["plain", "reentrant", "non-reentrant"])
def test_the_tap_catches_what_each_response_adds(monkeypatch, checkpointing):
    monkeypatch.setattr(live, "_NUMBERS", 10**6)  # no sketch: signs only
    model = tiny.model().train()
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    tap, ids = GradientTap(model), torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    with tap.watching():
        tap.begin(4)
        loss_of(model, ids).sum().backward()
    weights = [layer.self_attn.o_proj.weight for layer in model.model.layers]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(part, weights, retain_graph=True)])
        for part in loss_of(model.eval(), ids)
    ]
    truth = torch.stack(rows).double()
    caught = tap.caught.double()
    assert caught.shape == truth.shape
    torch.testing.assert_close(caught @ caught.T, truth @ truth.T, rtol=1e-5, atol=1e-7 * truth.square().sum().item())
    with tap.watching():  # forgets the last micro-batch
        assert not tap.caught.numel()


def test_a_sketch_keeps_products_on_average():
    model, ids = tiny.model(), torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    tap = GradientTap(model)
    with tap.watching():
        tap.begin(4)
        loss_of(model, ids).sum().backward()
    chosen = ResponseGradients(model, lambda name: "o_proj" in name)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 0] = False
    exact = chosen.grams(ids, torch.ones_like(ids), mask, group_size=4) / 16
    ones = torch.ones(1, 4)
    found = weighted_variance((tap.caught @ tap.caught.T).unsqueeze(0).double(), ones)
    assert tap.size == 2 * 16 * 16
    assert found.item() == pytest.approx(weighted_variance(exact, ones).item(), rel=0.2)


def test_no_trained_layer_is_refused():
    model = tiny.model().requires_grad_(False)
    with pytest.raises(ValueError, match="no linear layer in the blocks of the model is trained"):
        GradientTap(model)


def test_weights_that_are_elsewhere_are_refused():
    model = tiny.model()
    for parameter in model.parameters():  # what DeepSpeed ZeRO-3 leaves of them between passes
        parameter.data = parameter.data.new_empty(0)
    with pytest.raises(ValueError, match="weights are split over processes"):
        GradientTap(model)


def test_features_are_kept_where_the_model_will_compute():
    assert GradientTap(tiny.model(), torch.device("meta")).caught.device.type == "meta"
