"""Where the policy did not generate in the host's hands: its own pass is listened to, and dead groups need none."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from gcpo import GCPOConfig, GCPOTrainer
from gcpo.semantics.passed import PassTap
from gcpo.semantics.policy import backbone_of, has_plain_head
from tests import tiny
from tests.integrations.test_packing import gpt2, half_dead
from tests.integrations.test_trl import ALL_SIGNALS, build, logged, ours, parameters, trained

RECIPES = ["gcpo-bot", "gcpo-cd", "gcpo", "gcpo-surprisal"]
OLD = {"num_iterations": 2, "max_steps": 2}  # one generation, with TRL's pass for old log-probabilities


class Elsewhere(GCPOTrainer):
    """Responses come as from another engine: there is no generation to listen to."""

    def _make_generation_tap(self):
        return None


def elsewhere(directory, rewards=tiny.spread, **settings):
    return trained(build(Elsewhere, GCPOConfig, directory, rewards, **settings))


@pytest.mark.parametrize("recipe", RECIPES)
def test_dead_groups_are_not_passed(tmp_path, passes, recipe):
    tapped = trained(ours(tmp_path / "a", half_dead, recipe=recipe))
    assert not passes
    spared = elsewhere(tmp_path / "b", half_dead, recipe=recipe)
    dead = logged(spared, "gcpo/dead_groups")
    assert sum(passes) == sum(round(8 * (1 - share)) for share in dead) < 8 * len(dead)
    torch.testing.assert_close(parameters(spared), parameters(tapped), atol=1e-5, rtol=1e-5)
    signal = spared.recipe.signal
    if signal is not None:
        live, found = spared.last_groups.outcome.live, spared.last_groups.signals[signal]
        assert torch.equal(found.isfinite(), live)
        torch.testing.assert_close(found[live], tapped.last_groups.signals[signal][live], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_batch_of_dead_groups_costs_no_pass(tmp_path, passes, recipe):
    trainer = elsewhere(tmp_path, lambda completions, **_: [1.0] * len(completions), recipe=recipe, max_steps=2)
    assert not passes
    assert logged(trainer, "gcpo/dead_groups") == [1.0, 1.0]
    assert not trainer.last_groups.outcome.advantages.any()


def test_signals_that_are_logged_are_those_of_all_groups(tmp_path, passes):
    trainer = elsewhere(tmp_path, half_dead, max_steps=1, gcpo_log_signals=["cosine_dispersion"])
    assert sum(passes) == 8
    assert trainer.last_groups.signals["cosine_dispersion"].isfinite().all()


@pytest.mark.parametrize("model", [tiny.model, gpt2], ids=["llama", "gpt2"])
def test_the_hosts_own_pass_is_listened_to(tmp_path, passes, model, monkeypatch):
    settings = OLD | {
        "gcpo_log_signals": ALL_SIGNALS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
    }
    found = trained(build(Elsewhere, GCPOConfig, tmp_path / "a", model=model(), **settings))
    assert len(passes) == 1  # of four tokens, to see what its head is
    passes.clear()
    monkeypatch.setattr(PassTap, "take", lambda *_: None)
    passed = trained(build(Elsewhere, GCPOConfig, tmp_path / "b", model=model(), **settings))
    assert passes == [1, 4, 4]
    for name, value in passed.last_groups.signals.items():
        torch.testing.assert_close(found.last_groups.signals[name], value, atol=1e-4, rtol=1e-3, msg=name)
    torch.testing.assert_close(parameters(found), parameters(passed), atol=1e-5, rtol=1e-5)


def test_a_pass_that_does_not_see_truncated_responses_is_no_good(tmp_path, passes):
    elsewhere(tmp_path, mask_truncated_completions=True, **OLD)
    assert sum(passes) == 8


def test_rows_are_recognised_by_their_tokens():
    model = tiny.model()
    tap, ids = PassTap(backbone_of(model)), torch.randint(3, 50, (4, 9))
    for fed, use_cache, known in ((ids, False, True), (ids, True, False), (ids.flip(0), False, False)):
        with tap.listening():
            for rows in fed.split(2):
                model(input_ids=rows, use_cache=use_cache)
            model(input_ids=ids + 1, use_cache=False)
        states = tap.take(ids, 5)
        assert (states is not None) == known
    with tap.listening():
        model(input_ids=ids, use_cache=False)
        model(input_ids=ids, use_cache=False)
    expected = model.model(input_ids=ids).last_hidden_state[:, -6:]
    torch.testing.assert_close(tap.take(ids, 5), expected)
    assert tap.take(ids, 5) is None


def test_a_head_that_caps_its_logits_is_not_plain():
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    assert has_plain_head(tiny.model())
    capped = Gemma2ForCausalLM(Gemma2Config(**sizes, final_logit_softcapping=0.01))
    assert not has_plain_head(capped)
    assert has_plain_head(Gemma2ForCausalLM(Gemma2Config(**sizes, final_logit_softcapping=None)))
    assert not has_plain_head(Gemma2ForCausalLM(Gemma2Config(**sizes)).bfloat16())


@pytest.mark.parametrize("cast", [{"bf16": True}, {"cast_lm_head_to_fp32": True}], ids=str)
def test_a_head_in_another_precision_is_plain(tmp_path, passes, cast):
    model = tiny.model() if "bf16" in cast else tiny.model().bfloat16()
    trainer = trained(build(Elsewhere, GCPOConfig, tmp_path, model=model, recipe="gcpo", **OLD, **cast))
    assert len(passes) == 1
    assert trainer.last_groups.inputs["scores"].any()
