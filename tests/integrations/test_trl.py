"""GCPOTrainer against TRL's GRPOTrainer: the same run, but for the advantages."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from gcpo import RECIPES, GCPOConfig, GCPOTrainer
from gcpo.integrations.trl import READ, check_hooks, check_state
from gcpo.probe import ResponseGradients, weighted_variance
from gcpo.semantics import SentenceEncoder, policy
from gcpo.semantics.scores import draw_projection
from gcpo.signals import SIGNALS
from tests import tiny

SETTINGS = {
    "max_steps": 3,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 12,
    "learning_rate": 1e-2,
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}
ALL_SIGNALS = list(SIGNALS)


def build(trainer, config, directory, rewards=tiny.spread, model=None, **settings):
    return trainer(
        model=model or tiny.model(),
        reward_funcs=rewards,
        args=config(output_dir=str(directory), **SETTINGS | settings),
        train_dataset=tiny.dataset(),
        eval_dataset=tiny.dataset(4),
        processing_class=tiny.tokenizer(),
    )


def ours(directory, rewards=tiny.spread, **settings):
    return build(GCPOTrainer, GCPOConfig, directory, rewards, **settings)


def trained(trainer):
    """Train at once: TRL seeds when it builds, and two trainers share one random state."""
    trainer.train()
    return trainer


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def untrained():
    return torch.cat([p.detach().flatten() for p in tiny.model().parameters()])


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_iterations": 2}, {"gradient_accumulation_steps": 2, "steps_per_generation": 2}, {"loss_type": "grpo"}],
    ids=str,
)
def test_recipe_grpo_trains_bit_by_bit_as_trl_does(tmp_path, settings):
    theirs = trained(build(GRPOTrainer, GRPOConfig, tmp_path / "trl", **settings))
    apart = {"gcpo_log_signals": ALL_SIGNALS, "gcpo_pack": False}
    mine = trained(ours(tmp_path / "gcpo", recipe="grpo", **apart, **settings))
    assert torch.equal(parameters(mine), parameters(theirs))
    assert logged(mine, "loss") == logged(theirs, "loss")
    assert not torch.equal(parameters(mine), untrained())


@pytest.mark.parametrize(("name", "scale"), [("grpo", "group"), ("dr-grpo", "none")])
def test_advantages_equal_those_of_trl(tmp_path, name, scale):
    theirs = trained(build(GRPOTrainer, GRPOConfig, tmp_path / "trl", scale_rewards=scale, max_steps=1))
    mine = trained(ours(tmp_path / "gcpo", recipe=name, max_steps=1))
    expected = torch.tensor(list(theirs._logs["advantages"]))
    torch.testing.assert_close(torch.tensor(list(mine._logs["advantages"])), expected, atol=1e-6, rtol=1e-6)


def test_rloo_advantages_equal_those_of_trl(tmp_path):
    from trl import RLOOConfig, RLOOTrainer

    theirs = trained(build(RLOOTrainer, RLOOConfig, tmp_path / "trl", max_steps=1, beta=0.0))
    mine = trained(ours(tmp_path / "gcpo", recipe="rloo", max_steps=1))
    expected = torch.tensor(list(theirs._logs["advantages"]))
    torch.testing.assert_close(torch.tensor(list(mine._logs["advantages"])), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_and_logs(tmp_path, recipe):
    trainer = trained(ours(tmp_path, recipe=recipe))
    before = tiny.model().parameters()
    assert all(not torch.equal(a, b) for a, b in zip(trainer.model.parameters(), before, strict=True))
    signal = RECIPES[recipe].signal
    for metric in (
        "weight/mean",
        "dead_groups",
        "masked_responses",
        "overhead_s",
        f"signal/{signal or 'reward_dispersion'}",
    ):
        assert len(logged(trainer, f"gcpo/{metric}")) == 3, metric
    assert logged(trainer, "gcpo/weight/mean") == pytest.approx([1.0] * 3)


def test_the_completions_table_shows_the_advantages_that_train(tmp_path):
    trainer = trained(ours(tmp_path, recipe="gcpo-bot", gcpo_alpha=4.0))
    groups = trainer.last_groups
    assert list(trainer._logs["advantages"]) == groups.outcome.advantages.flatten().tolist()
    assert groups.outcome.weights.std() > 0


def test_equal_rewards_move_no_weight(tmp_path):
    # TRL's own formula gives 3e-4 here, and Adam makes full steps of it.
    trainer = trained(
        ours(tmp_path, lambda completions, **_: [0.3] * len(completions), num_generations=8, recipe="grpo")
    )
    assert torch.equal(parameters(trainer), untrained())
    assert logged(trainer, "gcpo/dead_groups") == [1.0] * 3


def test_truncated_responses_keep_their_geometry(tmp_path):
    # mask_truncated_completions zeroes TRL's completion mask; pooled by it, the vectors would be 0.
    settings = {"max_steps": 1, "gcpo_log_signals": ALL_SIGNALS}
    plain = trained(ours(tmp_path / "a", **settings))
    masked = trained(ours(tmp_path / "b", mask_truncated_completions=True, **settings))
    assert logged(masked, "completions/clipped_ratio")[0] > 0
    for signal in ("cosine_dispersion", "barycentric_transport"):
        assert logged(masked, f"gcpo/signal/{signal}") == pytest.approx(
            logged(plain, f"gcpo/signal/{signal}"), abs=1e-6
        )


def test_several_rewards_some_of_them_missing(tmp_path):
    def sometimes(completions, **_):
        return [None if i % 3 == 0 else float(len(c)) / 12 for i, c in enumerate(completions)]

    def never(completions, **_):
        return [None] * len(completions)

    trainer = trained(ours(tmp_path / "a", [tiny.spread, sometimes], reward_weights=[1.0, 0.5], gcpo_reward_range=1.5))
    assert torch.isfinite(parameters(trainer)).all()
    assert logged(trainer, "gcpo/masked_responses") == [0.0] * 3
    alone = trained(ours(tmp_path / "b", sometimes))
    assert logged(alone, "gcpo/masked_responses")[0] == pytest.approx(3 / 8)
    nothing = trained(ours(tmp_path / "c", never))
    assert logged(nothing, "gcpo/dead_groups") == [1.0] * 3


@pytest.mark.parametrize("generations", [1, 2, 4])
def test_evaluation_logs_under_its_own_name(tmp_path, generations):
    trainer = ours(tmp_path, num_generations_eval=generations, per_device_eval_batch_size=4)
    trainer.evaluate()
    assert ("eval_gcpo/dead_groups" in trainer.state.log_history[-1]) == (generations > 1)
    assert trainer.last_groups is None


def test_one_generation_serves_several_steps(tmp_path):
    # steps_per_generation 2 with accumulation 1 makes TRL compute old log-probs.
    trainer = trained(ours(tmp_path, steps_per_generation=2, gradient_accumulation_steps=1, max_steps=4))
    assert len(logged(trainer, "gcpo/weight/mean")) == 2


def test_conversations_and_two_line_answers(tmp_path):
    def lines(completions, **_):
        return tiny.spread([c[0]["content"] for c in completions])

    tokens = tiny.tokenizer()
    tokens.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    rows = [{"prompt": [{"role": "user", "content": f"{i}\n"}]} for i in range(4)]
    trainer = GCPOTrainer(
        model=tiny.model(),
        reward_funcs=lines,
        args=GCPOConfig(output_dir=str(tmp_path), **SETTINGS | {"recipe": "gcpo-bot", "max_completion_length": 40}),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokens,
    )
    trainer.train()
    assert all(isinstance(text, str) for text in trainer.last_groups.completions)
    # Some random response has a line break, so clouds of more than one point reached the signal.
    assert trainer.last_groups.inputs["points"].shape[2] > 1


def test_a_text_encoder_is_the_source_of_geometry(tmp_path, monkeypatch):
    class Letters:
        def encode(self, texts, **_):
            return torch.tensor([[t.count(c) + 0.1 for c in "abcdefgh"] for t in texts])

    monkeypatch.setattr("gcpo.integrations.trl.text_embedder", lambda name: SentenceEncoder(Letters()))
    monkeypatch.setattr("gcpo.integrations.trl_config.check_embedder", lambda name: None)
    trainer = ours(tmp_path, gcpo_embedder="letters", gcpo_log_signals=ALL_SIGNALS)
    trainer.train()
    assert trainer.last_groups.inputs["embeddings"].shape == (2, 4, 8)


def test_groups_of_a_batch_are_kept_for_reports(tmp_path):
    trainer = trained(ours(tmp_path, recipe="gcpo-bot", max_steps=1, gcpo_log_signals=ALL_SIGNALS))
    groups = trainer.last_groups
    assert len(groups.prompts) == len(groups.completions) == 8
    assert len(set(groups.prompts[:4])) == 1
    assert groups.rewards.flatten().tolist() == pytest.approx(tiny.spread(groups.completions))
    assert set(groups.signals) == set(ALL_SIGNALS)
    for name in ("variance", "snr", "rank_correlation", "overhead_s"):
        assert len(logged(trainer, f"gcpo/grad/{name}")) == 1
    assert groups.inputs["embeddings"].shape == (2, 4, 32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gcpo_pack": False},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {
            "steps_per_generation": 2,
            "gradient_accumulation_steps": 1,
            "per_device_train_batch_size": 4,
            "max_steps": 2,
        },
    ],
    ids=str,
)
def test_the_gradients_noise_is_that_of_the_probe(tmp_path, monkeypatch, settings):
    monkeypatch.setattr("gcpo.probe.live._NUMBERS", 10**6)  # no sketch
    said = []

    def remember(completions, completion_ids, **_):
        said.extend(completion_ids)
        return tiny.spread(completions)

    settings = {"max_steps": 1, "learning_rate": 0.0, "loss_type": "grpo", **settings}
    trainer = trained(ours(tmp_path, remember, recipe="grpo", **settings))
    groups, probe = trainer.last_groups, ResponseGradients(trainer.model, lambda name: "o_proj" in name)
    asked = [tiny.tokenizer()(prompt)["input_ids"] for prompt in groups.prompts]
    rows = [torch.tensor(a + b) for a, b in zip(asked, said, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    place = torch.arange(ids.size(1))
    ends = torch.tensor([[len(a), len(a) + len(b)] for a, b in zip(asked, said, strict=True)])
    exists = (place < ends[:, 1:]).long()
    mask = (place >= ends[:, :1]) & exists.bool()
    gram = probe.grams(ids, exists, mask, group_size=4)
    a = groups.outcome.advantages / mask.sum(1).view(2, 4)  # the loss is the mean over a response's tokens
    expected = weighted_variance(gram, a)
    torch.testing.assert_close(groups.gradient_variance, expected, rtol=1e-3, atol=1e-9)
    assert logged(trainer, "gcpo/grad/variance") == pytest.approx([expected.mean().item()], rel=1e-3)


def test_geometry_comes_from_the_generation_itself(tmp_path, monkeypatch):
    passed = []
    forward = policy.forward
    monkeypatch.setattr(policy, "forward", lambda *a: passed.append(len(a[2])) or forward(*a))
    settings = {"max_steps": 1, "max_completion_length": 56, "gcpo_log_signals": ALL_SIGNALS}
    tapped = trained(ours(tmp_path / "tapped", **settings))
    assert not passed
    passed.clear()
    monkeypatch.setattr("gcpo.integrations.trl_measure.GenerationTap.take", lambda *_: None)
    passing = trained(ours(tmp_path / "passing", **settings))
    assert sum(passed) == 8
    for name, value in passing.last_groups.signals.items():
        torch.testing.assert_close(tapped.last_groups.signals[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_scores_are_those_of_the_sampling_policy(tmp_path, temperature):
    said = []

    def remember(completions, completion_ids, **_):
        said.extend(completion_ids)
        return tiny.spread(completions)

    wanted = ["predictive_entropy", "normalized_predictive_entropy", "score_dispersion"]
    settings = {"max_steps": 1, "learning_rate": 0.0, "temperature": temperature}
    trainer = trained(ours(tmp_path, remember, recipe="grpo", gcpo_log_signals=wanted, **settings))
    groups, model = trainer.last_groups, trainer.model.eval()
    found = {name: groups.inputs[name].flatten(0, 1) for name in ("log_probs", "lengths", "scores")}
    R, Q = draw_projection(*model.lm_head.weight.shape)
    for i, (prompt, response) in enumerate(zip(groups.prompts, said, strict=True)):
        # One response at a time, without padding, its gradient by autograd.
        asked = tiny.tokenizer()(prompt)["input_ids"]
        logits = model(torch.tensor([asked + response])).logits[0, len(asked) - 1 : -1]
        log_p = (logits / temperature).log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum()
        (score,) = torch.autograd.grad(log_p, model.lm_head.weight)
        assert found["lengths"][i] == len(response)
        torch.testing.assert_close(found["log_probs"][i], log_p.detach(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["scores"][i], Q.apply(R.apply(score.mT).mT).flatten(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "grop"}, "recipe must be one of"),
        ({"gcpo_alpha": -1.0}, "gcpo_alpha must be at least 0 and finite, found -1.0"),
        ({"gcpo_modulation": "cubic"}, "gcpo_modulation must be one of"),
        ({"gcpo_log_signals": ["entropy"]}, "gcpo_log_signals has no signal 'entropy'"),
        ({"gcpo_equivalence": "alike"}, "gcpo_equivalence must be one of exact, folded, math or cosine:T"),
        ({"gcpo_max_points": 0}, "gcpo_max_points must be at least 1"),
        ({"gcpo_steps": "words"}, "gcpo_steps must be auto, lines or sentences, found 'words'"),
        ({"scale_rewards": "batch"}, "scale_rewards must stay 'group', found 'batch'"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "must stay 'sum_then_normalize'"),
    ],
)
def test_a_bad_configuration_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        GCPOConfig(output_dir=str(tmp_path), **SETTINGS | settings)


def test_a_grpo_config_is_refused(tmp_path):
    with pytest.raises(TypeError, match="args must be a GCPOConfig, found GRPOConfig"):
        build(GCPOTrainer, GRPOConfig, tmp_path)


def test_a_changed_host_is_named_in_one_sentence():
    class Gone:
        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list): ...

    class Changed(Gone):
        def _generate_and_score_completions(self, inputs, extra): ...

    with pytest.raises(ImportError, match=r"of trl 9.9, in which .*completions\(self, inputs\) is gone; .*prep"):
        check_hooks(Gone, "9.9")
    with pytest.raises(
        ImportError, match=r"completions\(self, inputs\) takes \(self, inputs, extra\); .*: install a tested release"
    ):
        check_hooks(Changed, "9.9")
    with pytest.raises(ImportError, match=r"in which _logs is gone: install a tested release, pip install \"trl>=1"):
        check_state(SimpleNamespace(**{name: None for name in READ if name != "_logs"}))
