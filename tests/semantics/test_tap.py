"""What generation leaves behind against a forward pass over the same responses."""

from types import MethodType

import pytest
import torch
import transformers

from gcpo.semantics import policy
from gcpo.semantics.policy import MEASURED, Measure, backbone_of
from gcpo.semantics.tap import GenerationTap
from tests import tiny

PROMPTS = ["1+2=", "10+23=", "7="]


def generated(model, tap, **settings):
    """Ragged responses from left-padded prompts."""
    tokens = tiny.tokenizer()
    tokens.padding_side = "left"
    asked = tokens([p for p in PROMPTS for _ in range(2)], return_tensors="pt", padding=True)
    torch.manual_seed(0)
    P = asked["input_ids"].shape[1]
    with tap.listening():
        said = model.generate(
            input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], do_sample=True, max_new_tokens=9,
            eos_token_id=list(range(20, 30)), **settings
        )  # fmt: skip
    ids = said[:, P:]
    ended = torch.isin(ids, torch.arange(20, 30)).long()
    mask = (ended.cumsum(1) - ended) == 0
    return asked["input_ids"], asked["attention_mask"], ids, mask


def kind(name, **more):
    """A small model of another kind."""
    pytest.importorskip("transformers", minversion="5.0")
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tiny.tokenizer()), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": None}
    config = getattr(transformers, f"{name}Config")
    if name.endswith("VL"):
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
        seen = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
        config = config(text_config=sizes | {"rope_parameters": rope}, vision_config=seen)
        return getattr(transformers, f"{name}ForConditionalGeneration")(config)
    return getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")(config(**sizes | {"head_dim": 8} | more))


def build(temperature=0.7, scored=True, model=None):
    model = (model or tiny.model()).eval()
    measure = Measure(tiny.tokenizer(), MEASURED, max_points=4, temperature=temperature, batch_size=4)
    tap = GenerationTap(model, backbone_of(model), measure.projection if scored else None, temperature)
    return model, measure, tap


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_everything_measured_is_that_of_a_forward_pass(monkeypatch, temperature):
    model, measure, tap = build(temperature)
    rows = generated(model, tap)
    lengths = rows[3].sum(1)
    assert lengths.min() < lengths.max()
    expected = measure(model, backbone_of(model), *rows)
    passed = []
    forward = policy.forward
    monkeypatch.setattr(policy, "forward", lambda *a: passed.append(len(a[2])) or forward(*a))
    found = measure.of_generation(tap.take(*rows[2:]), model, backbone_of(model), *rows)
    assert not passed
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


LINEAR = {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2}
LINEAR |= {"linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
HYBRID = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
STATIC = {"cache_implementation": "static"}


@pytest.mark.parametrize(
    ("name", "more", "settings", "whole"),
    [
        ("Qwen2_5_VL", {}, {}, True),  # three positions a token
        ("Qwen3_5Text", LINEAR, {}, True),  # a cache of which no rows can be chosen
        ("FalconH1", HYBRID, {}, True),  # nor all of a layer's
        ("Llama4Text", {"num_local_experts": 2, "intermediate_size_mlp": 64}, {}, True),  # its own base model
        ("Gemma2", {"sliding_window": 4}, {}, True),
        ("Gemma2", {"sliding_window": 4}, STATIC, False),  # a mask for each kind of layer
        ("Bloom", {}, STATIC, False),
    ],
)
def test_models_of_other_kinds(name, more, settings, whole):
    model, measure, tap = build(model=kind(name, **more))
    rows = generated(model, tap, pad_token_id=0, **settings)
    expected = measure(model, backbone_of(model), *rows)
    tapped = tap.take(*rows[2:])
    assert (tapped.last is not None) == whole
    found = measure.of_generation(tapped, model, backbone_of(model), *rows)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-3, msg=name)


def test_states_are_measured_a_few_responses_at_a_time(monkeypatch):
    model, measure, tap = build()
    rows = generated(model, tap)
    seen = []
    for name in ("pool_steps", "score_features_of_sketch"):
        found = getattr(policy, name)
        monkeypatch.setattr(policy, name, lambda x, *a, found=found: seen.append(len(x)) or found(x, *a))
    measure.of_generation(tap.take(*rows[2:]), model, backbone_of(model), *rows)
    assert seen == [4, 4, 2, 2]


def test_the_step_more_is_computed_as_the_others():
    model, _, tap = build()
    forward = model.forward
    model.forward = MethodType(lambda _, *a, **k: torch.autocast("cpu", torch.bfloat16)(forward)(*a, **k), model)
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    _, _, ids, mask = generated(model, tap)
    assert tap.take(ids, mask).last is not None
    assert all(seen)


def test_a_model_that_was_patched_before_stays_so():
    model, _, tap = build()
    model.generate = mine = model.generate
    generated(model, tap)
    assert vars(model)["generate"] is mine


def test_no_step_more_where_last_states_are_not_wanted():
    model = tiny.model().eval()
    tap = GenerationTap(model, backbone_of(model), last=False)
    fed = []
    model.model.register_forward_hook(lambda *_: fed.append(1))
    _, _, ids, mask = generated(model, tap)
    assert len(fed) == ids.shape[1]
    assert tap.take(ids, mask).last is None


def test_columns_beyond_the_longest_response_and_silenced_tokens():
    model, measure, tap = build()
    prompt_ids, prompt_mask, ids, mask = generated(model, tap)
    spoken = mask & (torch.arange(ids.shape[1]) % 2 == 0)
    tapped = tap.take(torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5)))
    rows = (backbone_of(model), prompt_ids, prompt_mask, ids, mask, spoken)
    expected, found = measure(model, *rows), measure.of_generation(tapped, model, *rows)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_some_of_the_responses_without_the_longest():
    model, measure, tap = build()
    prompt_ids, prompt_mask, ids, mask = generated(model, tap)
    lengths = mask.sum(1)
    shorter = lengths < lengths.max()
    assert 0 < shorter.sum() < len(ids)
    tapped = tap.take(ids, mask)
    for rows in (shorter, ~shorter):
        of = (model, backbone_of(model), *(x[rows] for x in (prompt_ids, prompt_mask, ids, mask)))
        expected, found = measure(*of), measure.of_generation(tapped.of(rows), *of)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_without_one_step_more_the_longest_responses_pass_again(monkeypatch):
    monkeypatch.setattr(GenerationTap, "_step", lambda *_: None)
    model, measure, tap = build()
    rows = generated(model, tap)
    lengths = rows[3].sum(1)
    expected = measure(model, backbone_of(model), *rows)
    passed = []
    forward = policy.forward
    monkeypatch.setattr(policy, "forward", lambda *a: passed.append(len(a[2])) or forward(*a))
    found = measure.of_generation(tap.take(*rows[2:]), model, backbone_of(model), *rows)
    assert sum(passed) == (lengths == lengths.max()).sum() < 6
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("settings", [{"use_cache": False}, {"num_beams": 2}], ids=str)
def test_a_generation_of_another_kind_is_not_taken(settings):
    model, _, tap = build()
    _, _, ids, mask = generated(model, tap, **settings)
    assert tap.take(ids, mask) is None


def test_other_tokens_than_those_generated_are_not_taken():
    model, _, tap = build()
    _, _, ids, mask = generated(model, tap)
    assert tap.take(ids.roll(1, 0), mask) is None
    _, _, ids, mask = generated(model, tap)
    assert tap.take(ids[:4], mask[:4]) is None
    _, _, ids, mask = generated(model, tap)
    assert tap.take(ids, mask).last is not None
    assert tap.take(ids, mask) is None  # once


def test_it_leaves_no_hook_and_keeps_no_logits():
    model, _, tap = build(scored=False)
    _, _, ids, mask = generated(model, tap)
    tapped = tap.take(ids, mask)
    assert tapped.log_p is tapped.sketch is None
    assert not model._forward_hooks
    assert not model.model._forward_hooks
    assert "generate" not in vars(model)
    assert not tap._call


def test_only_the_longest_responses_are_fed_their_last_token():
    model, _, tap = build()
    fed = []
    model.model.register_forward_hook(
        lambda _m, _a, kwargs, _o: fed.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    _, _, ids, mask = generated(model, tap, pad_token_id=0)
    longest = mask.sum(1) == mask.sum(1).amax()
    assert fed[-1] == longest.sum() < len(ids)
    last = tap.take(ids, mask).last
    assert (last.abs().sum((1, 2)) > 0).tolist() == longest.tolist()


def test_a_response_that_only_looks_as_if_it_had_ended_is_missed():
    model, _, tap = build()
    _, _, ids, mask = generated(model, tap, pad_token_id=0)
    assert tap.take(ids, torch.ones_like(mask)).last is None
