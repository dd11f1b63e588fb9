"""First draws: what is drawn, scored and trained on, and that the batch is otherwise as it was."""

import math

import pytest
import torch

from gcpo import GCPOConfig
from gcpo.advantages.first_draws import completion
from gcpo.integrations.drawing import Draws
from gcpo.integrations.spending import FirstDraws
from tests import tiny
from tests.integrations.scripted import Scripted
from tests.integrations.test_packing import half_dead
from tests.integrations.test_resume import (
    test_a_run_resumed_from_a_checkpoint_is_the_run_it_would_have_been as resumes,
)
from tests.integrations.test_trl import build, logged, ours, parameters, trained
from tests.integrations.test_two_processes import assert_equal_on_one_and_two

SETTINGS = {"per_device_train_batch_size": 16, "max_steps": 3, "learning_rate": 1e-2}


def scripted(directory, rewards=half_dead, **settings):
    return trained(build(Scripted, GCPOConfig, directory, rewards, **SETTINGS | settings))


def unscored(completions, prompts, **_):
    """``half_dead``, with nothing to say of what would not be drawn after two of four."""
    r = half_dead(completions, prompts)
    worth = [r[i - i % 4] != r[i - i % 4 + 2] for i in range(len(r))]
    return [x if i % 2 == 0 or worth[i] else None for i, x in enumerate(r)]


@pytest.mark.parametrize("recipe", ["grpo", "gcpo"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"num_iterations": 2}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}],
    ids=["plain", "two uses", "four micro-batches"],
)
def test_it_is_the_run_in_which_what_was_not_drawn_has_no_reward(tmp_path, recipe, settings):
    settings = settings | {"recipe": recipe, "loss_type": "grpo"}
    spared = scripted(tmp_path / "a", gcpo_first_draws=2, **settings)
    whole = scripted(tmp_path / "b", unscored, **settings)
    torch.testing.assert_close(parameters(spared), parameters(whole), atol=1e-6, rtol=1e-5)
    completed = logged(spared, "gcpo/first_draws/completed")
    assert all(0 < share < 1 for share in completed[:1])
    # First draws, then the rest of the groups worth it.
    first, rest, *_ = spared.drawn
    assert first == [i for i in range(16) if i % 2 == 0]
    assert len(rest) == 8 * completed[0]
    assert sorted(rest) == [i for i in range(16) if i % 2 and i // 4 in {j // 4 for j in rest}], "whole groups"


def test_each_drawn_response_is_scored_once_and_logged_in_its_row(tmp_path):
    seen = []

    def rewards(completions, prompts, log_extra, **_):
        seen.append(list(completions))
        log_extra("said", list(completions))
        return half_dead(completions, prompts)

    trainer = scripted(tmp_path, rewards, gcpo_first_draws=2, max_steps=1)
    drawn = [place for places in trainer.drawn for place in places]
    texts = trainer.processing_class.batch_decode([trainer._say(place) for place in range(16)])
    assert [text for call in seen for text in call] == [texts[place] for place in drawn]
    expected = [texts[place] if place in drawn else "" for place in range(16)]
    assert list(trainer._logs["completion"]) == trainer.last_groups.completions == expected
    assert list(trainer._logs["extra"]["said"]) == [text or None for text in expected]
    found = trainer.last_groups.rewards.flatten()
    assert found.isnan().tolist() == [place not in drawn for place in range(16)]


def test_metrics_of_reward_functions_are_the_policys(tmp_path):
    def rewards(completions, prompts, log_metric, **_):
        log_metric("responses", len(completions))
        return half_dead(completions, prompts)

    trainer = scripted(tmp_path, rewards, gcpo_first_draws=2, max_steps=1)
    assert len(trainer.drawn) == 2
    assert logged(trainer, "responses") == [8]


def test_where_another_process_drew_more_what_was_drawn_is_scored_again(tmp_path, monkeypatch):
    seen = []

    def rewards(completions, log_extra, **_):
        seen.extend(completions)
        log_extra("said", list(completions))
        return [float(text) for text in completions]

    trainer = build(Scripted, GCPOConfig, tmp_path, rewards, gcpo_first_draws=2)
    monkeypatch.setattr(trainer.accelerator, "gather", lambda x: x.new_tensor([3]) if x.numel() == 1 else x)
    draws = Draws([{"prompt": "1="}] * 4, torch.arange(4), 4, 0, torch.full((4, 1), torch.nan), torch.ones(1), [3])
    draws.prompts, draws.now = ["1="] * 4, torch.tensor([False, True, False, False])
    draws.drawn = torch.tensor([True, True, False, False])
    trainer._score_drawn(draws, ["5", "6", "7", "8"], [[3]] * 4, first=True)
    assert seen == ["6", "5", "6"]
    assert draws.rewards.flatten().nan_to_num(0).tolist() == [0.0, 6.0, 0.0, 0.0]
    assert draws.extra == {"said": [None, "6", None, None]}


def test_tokens_are_counted_as_they_are_drawn(tmp_path):
    trainer = scripted(tmp_path, gcpo_first_draws=2, max_steps=1)
    drawn = [place for places in trainer.drawn for place in places]
    tokens = sum(len(trainer._say(place)) for place in drawn)
    asked = sum(len(tiny.tokenizer()(trainer.last_groups.prompts[place])["input_ids"]) for place in drawn)
    assert logged(trainer, "gcpo/first_draws/tokens") == [tokens]
    assert logged(trainer, "gcpo/first_draws/responses") == [len(drawn)]
    assert logged(trainer, "num_tokens") == [tokens + asked]
    assert logged(trainer, "gcpo/first_draws/tokens_saved")[0] > 0
    first = trainer.last_groups.rewards[:, ::2].mean().item()
    assert logged(trainer, "gcpo/first_draws/reward") == [pytest.approx(first)]
    assert logged(trainer, "gcpo/masked_responses") == [pytest.approx(1 - len(drawn) / 16)]


def test_weights_that_leave_the_update_unbiased(tmp_path):
    def right(completions, **_):
        return [float(r > 0.3) for r in tiny.spread(completions)]

    settings = {"gcpo_first_draws": 2, "max_steps": 1, "recipe": "rloo"}
    biased = scripted(tmp_path / "a", right, **settings)
    unbiased = scripted(tmp_path / "b", right, gcpo_unbiased_draws=True, **settings)
    c = completion(biased.last_groups.rewards, 2)
    assert (c < 1).any()
    expected = biased.last_groups.outcome.advantages / c.unsqueeze(-1)
    torch.testing.assert_close(unbiased.last_groups.outcome.advantages, expected)


def test_what_a_model_draws_trains_it_and_evaluation_is_as_ever(tmp_path):
    settings = SETTINGS | {"gcpo_first_draws": 2, "eval_strategy": "steps", "eval_steps": 1}
    rewards = [trained(ours(tmp_path / name, half_dead, **settings)) for name in "ab"]
    assert torch.equal(*map(parameters, rewards))
    assert not torch.equal(parameters(rewards[0]), parameters(ours(tmp_path / "c", **settings)))
    assert not any(math.isnan(value) for value in logged(rewards[0], "eval_reward"))
    assert not [name for entry in rewards[0].state.log_history for name in entry if name.startswith("eval_gcpo/first")]


@pytest.mark.parametrize("recipe", ["gcpo-bot", "gcpo"])
def test_geometry_comes_from_both_generations(tmp_path, passes, recipe, monkeypatch):
    settings = SETTINGS | {"gcpo_first_draws": 2, "recipe": recipe, "max_steps": 2}
    heard = trained(ours(tmp_path / "a", half_dead, **settings))
    assert not passes
    assert heard.last_groups.rewards.isnan().any()
    monkeypatch.setattr("gcpo.integrations.trl_measure.GenerationTap.take", lambda *_: None)
    passed = trained(ours(tmp_path / "b", half_dead, **settings))
    assert 0 < sum(passes) < 32
    torch.testing.assert_close(parameters(heard), parameters(passed), atol=1e-5, rtol=1e-5)


def test_a_batch_with_nothing_worth_completing(tmp_path):
    trainer = scripted(tmp_path, lambda completions, **_: [1.0] * len(completions), gcpo_first_draws=2)
    assert logged(trainer, "gcpo/first_draws/completed") == [0.0] * 3
    assert len(trainer.drawn) == 3
    assert torch.equal(parameters(trainer), torch.cat([p.detach().flatten() for p in tiny.model().parameters()]))


@pytest.mark.parametrize("settings", [{"num_iterations": 2}, {"steps_per_generation": 2, "logging_steps": 5}], ids=str)
def test_a_run_is_resumed_bit_for_bit(tmp_path, settings):
    resumes(tmp_path, settings | {"gcpo_first_draws": 2})


def test_a_group_that_straddles_two_processes(tmp_path):
    assert_equal_on_one_and_two(tmp_path, 6, recipe="gcpo-bot", gcpo_first_draws=2)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"loss_type": "grpo"}, {"gcpo_unbiased_draws": True}], ids=str)
def test_processes_with_nothing_to_draw(tmp_path, settings):
    # Two rows each of groups of four: one process has all first draws, the other what is left.
    assert_equal_on_one_and_two(tmp_path, 2, recipe="grpo", gcpo_first_draws=2, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gcpo_first_draws": 1}, "at least 2 and less than num_generations=4, found 1"),
        ({"gcpo_first_draws": 4}, "at least 2 and less than num_generations=4, found 4"),
        ({"gcpo_unbiased_draws": True}, "gcpo_unbiased_draws weighs groups for gcpo_first_draws, found none"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        GCPOConfig(str(tmp_path), num_generations=4, use_cpu=True, bf16=False, **settings)


def test_hosts_that_draw_whole_groups_are_refused(tmp_path):
    def look(x: str) -> str:
        """Look up.

        Args:
            x: What.

        Returns:
            It.
        """
        return x

    trainer = ours(tmp_path)
    trainer.tools = [look]
    with pytest.raises(ValueError, match="gcpo_first_draws cannot be used with tools: leave it out"):
        trainer.begin_draws(FirstDraws(2))
