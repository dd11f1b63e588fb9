"""Against autograd, one response at a time, in double precision, on tiny random models of several families."""

import pytest
import torch
import transformers
from torch import nn

from gcpo.probe import ResponseGradients, estimates, score_variance
from gcpo.probe import gradients as gradients_module
from gcpo.probe import products as products_module

G, V = 3, 29
COMMON = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
SMALL = COMMON | {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "max_position_embeddings": 32}
GQA = SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2}
GEMMA = GQA | {"head_dim": 4, "sliding_window": 16, "query_pre_attn_scalar": 4}
GPT2 = COMMON | {"model": "GPT2LMHeadModel", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
FAMILIES = {
    "llama": ("Llama", GQA),
    "llama_tied": ("Llama", GQA | {"tie_word_embeddings": True}),
    "llama_biases": ("Llama", GQA | {"attention_bias": True, "mlp_bias": True}),
    "gpt2": (
        "GPT2",
        GPT2,
    ),
    "qwen2": ("Qwen2", GQA | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", GQA | {"head_dim": 8}),
    "gemma2_soft_cap": ("Gemma2", GEMMA | {"final_logit_softcapping": 0.5}),
    "gemma3_scaled_embedding": ("Gemma3Text", GEMMA | {"model": "Gemma3ForCausalLM"}),
    "granite_scaled_logits": ("Granite", GQA | {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "cohere_scaled_logits": ("Cohere", GQA | {"logit_scale": 0.25, "use_qk_norm": True}),
}


def build(family: str) -> nn.Module:
    name, settings = FAMILIES[family]
    settings = dict(settings)
    kind = settings.pop("model", f"{name}ForCausalLM")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**settings)).double()
    with torch.no_grad():
        for p in model.parameters():  # so that norms and biases are no ones and zeros, and padding rows no zeros
            p.add_(torch.randn_like(p) * 0.2)
    return model


def batch(left: bool = True, n: int = 2 * G, prompt: int = 4, tokens: int = 5, seed: int = 0):
    """Prompts padded on the left, responses of 0 to ``tokens`` tokens padded on the right, some of them pad tokens."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, V, (n, prompt + tokens), generator=draw)
    long = torch.tensor([tokens, 3, 0, 1, tokens, 2])[torch.arange(n) % 6].unsqueeze(-1)
    short = torch.tensor([0, 0, 2, 1, 0, 3])[torch.arange(n) % 6].unsqueeze(-1)
    column = torch.arange(prompt + tokens)
    short = short * left
    mask = (column >= prompt) & (column < prompt + long)
    attention = (column >= short) & (column < prompt + long)
    return ids * attention, attention.long(), mask


def scores(model: nn.Module, ids, attention, mask, temperature=1.0, names=None) -> torch.Tensor:
    """Gradients by autograd, flattened, one response at a time."""
    chosen = [p for name, p in model.named_parameters() if (name in names if names else p.requires_grad)]
    training = model.training
    model.eval()
    rows = []
    for i in range(len(ids)):
        row = {"input_ids": ids[i : i + 1], "attention_mask": attention[i : i + 1], "use_cache": False}
        if model.config.model_type == "gpt2":  # as generate does it
            row["position_ids"] = (row["attention_mask"].cumsum(1) - 1).clamp(min=0)
        logits = model(**row).logits[0, :-1]
        log_p = torch.log_softmax(logits / temperature, -1).gather(-1, ids[i, 1:, None]).squeeze(-1)
        gradients = torch.autograd.grad((log_p * mask[i, 1:]).sum(), chosen, allow_unused=True)
        rows.append(
            torch.cat([(g if g is not None else p * 0).flatten() for p, g in zip(chosen, gradients, strict=True)])
        )
    model.train(training)
    return torch.stack(rows).detach()


def products(s: torch.Tensor, size: int = G) -> torch.Tensor:
    s = s.unflatten(0, (-1, size))
    return s @ s.mT


def close(found: torch.Tensor, truth: torch.Tensor, tolerance: float = 1e-9) -> None:
    scale = truth.abs().max()
    assert scale > 0
    torch.testing.assert_close(found / scale, truth / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_grams_and_features_are_those_of_autograd(family):
    model = build(family)
    inputs = batch(left=family != "gemma2_soft_cap")  # its attention to nothing is NaN in double precision
    truth = scores(model, *inputs, temperature=0.7)
    probe = ResponseGradients(model)
    tolerance = 1e-6 if family.startswith(("gemma", "cohere")) else 1e-9  # their norms are in single precision
    close(probe.grams(*inputs, group_size=G, temperature=0.7), products(truth), tolerance)
    found = probe.features(*inputs, temperature=0.7)
    assert found.shape == (6, probe.size)
    close(found, truth, tolerance)


ADAPTERS = {
    "layers": ({"target_modules": ["q_proj", "down_proj"]}, 8),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, 6),
    "whole head": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, 5),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters(kind):
    peft = pytest.importorskip("peft")
    settings, parameters = ADAPTERS[kind]
    model = peft.get_peft_model(build("llama"), peft.LoraConfig(r=2, lora_alpha=8, lora_dropout=0.5, **settings))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    truth, probe = scores(model, *batch()), ResponseGradients(model.train())
    assert len(probe.shapes) == parameters
    close(probe.grams(*batch(), group_size=G), products(truth))
    close(probe.features(*batch()), truth)


@pytest.mark.parametrize(
    "chosen",
    [
        ["lm_head.weight"],
        ["model.norm.weight"],
        ["model.layers.1.mlp.down_proj.weight"],
        ["model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight"],
    ],
    ids=lambda names: names[0],
)
def test_chosen_parameters_only(chosen):
    model = build("llama").requires_grad_(False)
    truth = scores(model.requires_grad_(True), *batch(), names=chosen)
    probe = ResponseGradients(model.requires_grad_(False), chosen.__contains__)
    assert list(probe.shapes) == chosen
    close(probe.grams(*batch(), group_size=G), products(truth))
    close(probe.features(*batch()), truth)


def test_frozen_parameters_are_not_chosen():
    model = build("llama_tied")
    model.model.embed_tokens.weight.requires_grad_(False)
    probe = ResponseGradients(model)
    assert "model.embed_tokens.weight" not in probe.shapes
    close(probe.grams(*batch(), group_size=G), products(scores(model, *batch())))


@pytest.mark.parametrize("budget", [1, 64, 2**30], ids=["rows", "chunks", "whole"])
@pytest.mark.parametrize("by_tokens", [False, True], ids=["matrices", "tokens"])
def test_every_way_to_the_products_is_the_same(budget, by_tokens, monkeypatch):
    monkeypatch.setattr(products_module, "_IN_CACHE", budget)
    monkeypatch.setattr(products_module, "_tokens_are_fewer", lambda *_: by_tokens)
    monkeypatch.setattr(gradients_module, "_LOGITS", budget)
    model = build("llama_tied")
    close(ResponseGradients(model).grams(*batch(), group_size=G), products(scores(model, *batch())))


def test_a_group_does_not_depend_on_the_others_nor_on_padding():
    model, (ids, attention, mask) = build("llama_tied"), batch()
    probe = ResponseGradients(model)
    both = probe.grams(ids, attention, mask, G)
    close(probe.grams(ids[G:], attention[G:], mask[G:], G), both[1:])
    wider = [torch.nn.functional.pad(x, (2, 3)) for x in (ids, attention, mask)]
    close(probe.grams(*wider, G), both, 1e-6)  # rotary embeddings are in single precision


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_padding_on_the_left_counts_for_nothing_also_with_learned_positions(family):
    ids, attention, mask = batch(left=False)
    more = [torch.nn.functional.pad(x, (4, 0)) for x in (ids, attention, mask)]
    gradients = ResponseGradients(build(family))
    close(gradients.grams(*more, G), gradients.grams(ids, attention, mask, G), 1e-6)


def test_responses_without_tokens_have_no_gradient():
    model, (ids, attention, mask) = build("llama_tied"), batch()
    probe = ResponseGradients(model)
    assert (probe.grams(ids, attention, mask, G)[0, 2] == 0).all()  # the third response of the first group
    assert (probe.grams(ids, attention, torch.zeros_like(mask), G) == 0).all()


def test_single_precision_is_right_to_1e_4():
    model, inputs = build("llama_tied"), batch()
    truth = products(scores(model, *inputs))
    found = ResponseGradients(model.float()).grams(*inputs, group_size=G)
    assert found.dtype == torch.float64
    close(found, truth, 1e-5)


def test_half_precision_has_products_in_single():
    model, inputs = build("llama_tied").bfloat16(), batch()
    truth = products(scores(model, *inputs).double())
    found = ResponseGradients(model).grams(*inputs, group_size=G)
    assert ResponseGradients(model).features(*inputs).dtype == torch.float32
    close(found, truth, 0.03)


class TestSketch:
    def test_no_fewer_numbers_than_parameters_lose_nothing(self):
        model = build("llama_tied")
        probe = ResponseGradients(model)
        truth = products(scores(model, *batch()))
        close(probe.grams(*batch(), group_size=G, dim=probe.size), truth)

    @pytest.mark.parametrize("family", ["llama_tied", "gpt2", "cohere_scaled_logits"])
    def test_products_are_right_on_average(self, family):
        model = build(family)
        probe, truth = ResponseGradients(model), products(scores(model, *batch()))
        found = torch.stack([probe.grams(*batch(), group_size=G, dim=200, seed=seed) for seed in range(60)])
        error = found.std(0) / 60**0.5
        assert ((found.mean(0) - truth).abs() <= 4.5 * error + 1e-6 * truth.max()).all()

    def test_features_are_reproducible_and_comparable_across_calls(self):
        model, (ids, attention, mask) = build("llama_tied"), batch()
        probe = ResponseGradients(model)
        whole = probe.features(ids, attention, mask, dim=300)
        assert whole.shape[1] <= 300
        parts = [
            ResponseGradients(model).features(ids[i], attention[i], mask[i], dim=300) for i in ([0, 1], [2, 3, 4, 5])
        ]
        close(torch.cat(parts), whole)
        assert not torch.allclose(probe.features(ids, attention, mask, dim=300, seed=1), whole)

    def test_halves_tell_the_error_of_their_mean(self):
        model = build("llama_tied")
        probe, truth = ResponseGradients(model), score_variance(products(scores(model, *batch())))
        pairs = []
        for seed in range(80):
            s = probe.features(*batch(), dim=400, seed=seed, halves=True)
            both = estimates(s, G)
            close((s.double().unflatten(0, (-1, G)) @ s.double().unflatten(0, (-1, G)).mT), both.mean(0))
            pairs.append(torch.stack([score_variance(K) for K in both]))
        a, b = torch.stack(pairs, 1)
        said = ((a - b) / 2).square().mean(0).sqrt()
        made = ((a + b) / 2 - truth).square().mean(0).sqrt()
        torch.testing.assert_close(said, made, rtol=0.35, atol=0)  # 80 draws know a spread to 8 %

    def test_halves_of_whole_gradients_are_refused(self):
        with pytest.raises(ValueError, match="halves are of a sketch, but dim is None"):
            ResponseGradients(build("llama_tied")).features(*batch(), halves=True)

    def test_too_few_numbers_are_refused(self):
        with pytest.raises(ValueError, match=r"dim must be at least the number of parameters, 20, found 3\."):
            ResponseGradients(build("llama_tied")).features(*batch(), dim=3)


def fingerprint(model: nn.Module) -> list[object]:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    return [
        *([p.requires_grad, p.grad, p._version] for p in model.parameters()),
        *(module.training for module in model.modules()),
        hooks,
    ]


class TestTheModelIsLeftAsItWas:
    @pytest.fixture
    def model(self):
        model = build("llama_tied").train()
        model.model.layers[0].eval()
        model.model.layers[1].mlp.up_proj.weight.requires_grad_(False)
        return model

    def test_after_a_pass(self, model):
        before = fingerprint(model)
        ResponseGradients(model).grams(*batch(), group_size=G)
        assert fingerprint(model) == before

    @pytest.mark.parametrize("where", ["forward", "head", "backward"])
    def test_after_an_exception(self, model, where, monkeypatch):
        def fail(*_, **__):
            raise OSError("no more")

        before, probe = fingerprint(model), ResponseGradients(model)
        place = {
            "forward": (model.model.layers[1].mlp.act_fn, "forward"),
            "head": (gradients_module, "_ascent"),
            "backward": (products_module.GramSum, "_rows"),
        }
        monkeypatch.setattr(*place[where], fail)
        with pytest.raises(OSError, match="no more"):
            probe.grams(*batch(), group_size=G)
        monkeypatch.undo()
        assert fingerprint(model) == before
        close(probe.grams(*batch(), group_size=G), products(scores(model, *batch())))

    def test_no_graph_is_needed_around_it(self, model):
        with torch.no_grad():
            found = ResponseGradients(model).grams(*batch(), group_size=G)
        assert not found.requires_grad


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(16))

    def forward(self, x):
        return x * self.factor


class TestRefusals:
    def refused(self, model, error, words, **inputs):
        with pytest.raises(error, match=words):
            ResponseGradients(model, **inputs).grams(*batch(), group_size=G)

    def test_unknown_layers(self):
        model = build("llama")
        model.model.layers[0].mlp.add_module("extra", Scale())
        self.refused(model, ValueError, r"^model.layers.0.mlp.extra.factor is in a Scale, .* leave it out")
        ResponseGradients(model, lambda name: "extra" not in name)

    def test_layers_of_experts(self):
        config = transformers.MixtralConfig(**GQA, num_local_experts=2)
        self.refused(transformers.MixtralForCausalLM(config), ValueError, "is in a Mixtral")

    def test_adapters_with_magnitudes(self):
        peft = pytest.importorskip("peft")
        settings = peft.LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
        model = peft.get_peft_model(build("llama"), settings)
        self.refused(model, ValueError, "DoraLinearLayer")
        self.refused(model, RuntimeError, "called twice|was called on", parameters=lambda name: "lora_A" in name)

    def test_a_norm_that_is_not_one(self):
        class OddNorm(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(16))

            def forward(self, x):
                return x * self.weight**2

        model = build("llama")
        model.model.norm = OddNorm()
        self.refused(model, ValueError, "OddNorm")

    def test_an_embedding_that_takes_no_ids(self):
        config = transformers.OPTConfig(
            **COMMON, hidden_size=16, ffn_dim=20, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
        )
        self.refused(transformers.OPTForCausalLM(config), ValueError, "OPTLearnedPositionalEmbedding")

    def test_layers_called_twice(self):
        model = build("llama")
        model.model.layers[1].mlp = model.model.layers[0].mlp
        self.refused(model, RuntimeError, "must be called once, on 6 rows, was called twice")

    def test_weights_shared_by_layers(self):
        model = build("llama")
        model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
        self.refused(model, ValueError, "up_proj.weight is shared by Linear, Linear")

    def test_layers_not_called(self):
        model = build("llama")
        model.model.add_module("idle", nn.Linear(2, 2))
        self.refused(model, RuntimeError, r"model.idle.weight was not called")

    def test_rows_that_are_no_responses(self):
        model = build("llama")
        mlp = model.model.layers[0].mlp
        inner = mlp.forward
        mlp.forward = lambda x: inner(x.flatten(0, 1)).view_as(x)
        self.refused(model, RuntimeError, r"on 6 rows, was called on \(54, 16\)")

    def test_inputs_changed_in_place(self):
        model = build("llama")
        mlp = model.model.layers[0].mlp
        mlp.register_forward_hook(lambda _, args, y: y * args[0].detach().mul_(2))
        self.refused(model, RuntimeError, "changed in place")

    def test_models_without_logits(self):
        self.refused(build("llama").model, ValueError, "LlamaModel names no output layer")

    def test_nothing_chosen(self):
        self.refused(build("llama"), ValueError, "no parameter is chosen", parameters=lambda _: False)

    def test_ragged_groups_and_unpredicted_tokens(self):
        probe, (ids, attention, mask) = ResponseGradients(build("llama")), batch()
        with pytest.raises(ValueError, match="in groups of 4, found 6"):
            probe.grams(ids, attention, mask, 4)
        with pytest.raises(ValueError, match="first token"):
            probe.grams(ids, attention, attention.bool() | True, G)
