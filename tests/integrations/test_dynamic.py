"""Dynamic sampling: which groups are replaced by which, what is counted, and what is trained on in the end."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

from gcpo import GCPOConfig, GCPOTrainer
from gcpo.integrations.drawing import Draws
from gcpo.integrations.dynamic import DynamicSampling
from tests import tiny
from tests.integrations.scripted import Scripted, ScriptedHost
from tests.integrations.test_packing import half_dead
from tests.integrations.test_resume import (
    test_a_run_resumed_from_a_checkpoint_is_the_run_it_would_have_been as resumes,
)
from tests.integrations.test_trl import SETTINGS, build, logged, ours, parameters, trained, untrained
from tests.integrations.test_two_processes import assert_equal_on_one_and_two

ENOUGH = 6  # rounds: the data set has as many prompts besides the two of a batch
IN_ORDER = {"shuffle_dataset": False}


class Talkative(Scripted):
    """Says something else whenever a place is asked again; ``said`` lists it all, ``ends`` the batches trained on."""

    def __init__(self, *args, **named):
        self.said, self.ends = [], []
        super().__init__(*args, **named)

    def _say(self, place, step=0):
        self.said.append(super()._say(place + 100 * len(self.drawn), step))
        return self.said[-1]

    def end_pass(self, *args):
        super().end_pass(*args)
        self.ends.append(self.last_groups)


class Repeating(ScriptedHost):
    """TRL's own trainer on responses that are given."""

    def _say(self, place, step=0):
        return self.script[place]


def run(directory, rewards=half_dead, rounds=ENOUGH, **settings):
    settings = IN_ORDER | {"gcpo_dynamic_sampling": rounds} | settings
    return trained(build(Talkative, GCPOConfig, directory, rewards, **settings))


def dead(prompt):
    """By ``half_dead``."""
    return int(prompt[0]) % 2 == 0


def expected(step, rounds=ENOUGH, seed=42):
    """The prompts each round asks for, and those in the end, by the definition; 42 is TRL's seed."""
    batch = [f"{i}+{i + 1}=" for i in (2 * step, 2 * step + 1)]
    order = np.random.default_rng((seed, step)).permutation(8)
    others = [prompt for i in order if (prompt := f"{i}+{i + 1}=") not in batch]
    asked = [list(batch)]
    while len(asked) <= rounds and (places := [i for i, prompt in enumerate(batch) if dead(prompt)]):
        asked.append(others[: len(places)])
        for i in places:
            batch[i] = others.pop(0)
    return asked, batch


@pytest.mark.parametrize("rounds", [1, ENOUGH])
def test_groups_of_equal_rewards_are_replaced_by_other_prompts_until_none_is_left(tmp_path, rounds):
    calls = []

    def rewards(completions, prompts, log_extra, log_metric, **_):
        calls.append(prompts[::4])
        log_extra("of", prompts)
        log_metric("asked", len(prompts))
        return half_dead(completions, prompts)

    trainer = run(tmp_path, rewards, rounds)
    asked, ends = zip(*(expected(step, rounds) for step in range(3)), strict=True)
    assert calls == [prompts for rounds_ in asked for prompts in rounds_]
    assert max(map(len, asked)) > (1 if rounds == 1 else 2)
    assert [groups.prompts[::4] for groups in trainer.ends] == [*ends]
    still = [sum(map(dead, end)) / 2 for end in ends]
    assert any(still) == (rounds == 1)
    assert logged(trainer, "gcpo/dead_groups") == still
    assert logged(trainer, "gcpo/dynamic/dead_groups") == [0.5] * 3
    assert logged(trainer, "gcpo/dynamic/rounds") == [len(a) - 1 for a in asked]
    assert logged(trainer, "gcpo/dynamic/replaced") == [sum(map(len, a)) - 2 for a in asked]
    assert logged(trainer, "asked") == [8] * 3  # the first draw, which no reward has chosen
    # What is logged of a response is in the row of the one that was kept.
    assert list(trainer._logs["prompt"]) == list(trainer._logs["extra"]["of"]) == trainer.last_groups.prompts


def test_all_that_is_drawn_is_counted(tmp_path):
    trainer = run(tmp_path, max_steps=1)
    asked, _ = expected(0)
    assert len(asked) > 1
    tokens = sum(map(len, trainer.said))
    assert logged(trainer, "gcpo/dynamic/responses") == [len(trainer.said)] == [4 * sum(map(len, asked))]
    assert logged(trainer, "gcpo/dynamic/tokens") == [tokens]
    assert logged(trainer, "num_tokens") == [tokens + 4 * sum(len(prompt) for prompts in asked for prompt in prompts)]
    # The policy's reward is that of the first draw; all else is of the batch in the end, and logged once.
    texts = trainer.processing_class.batch_decode(trainer.said, skip_special_tokens=True)
    first = half_dead(texts[:8], np.repeat(asked[0], 4))
    assert logged(trainer, "gcpo/dynamic/reward") == [pytest.approx(np.mean(first))]
    assert logged(trainer, "reward") == [pytest.approx(trainer.last_groups.rewards.mean().item())]
    assert {*trainer.last_groups.completions} < {*texts}
    lengths = [len(ids) for ids in trainer._scored.ids]
    assert logged(trainer, "completions/mean_length") == [pytest.approx(np.mean(lengths))]


@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_the_update_is_that_of_trl_on_the_batch_in_the_end(tmp_path, loss):
    settings = {"max_steps": 1, "loss_type": loss, "epsilon_high": 0.28}
    mine = run(tmp_path / "a", recipe="grpo", gcpo_pack=False, **settings)
    assert logged(mine, "gcpo/dynamic/replaced") > [0]
    theirs = Repeating(
        model=tiny.model(),
        reward_funcs=half_dead,
        args=GRPOConfig(str(tmp_path / "b"), **SETTINGS | IN_ORDER | settings),
        train_dataset=Dataset.from_dict({"prompt": mine.last_groups.prompts[::4]}),
        processing_class=tiny.tokenizer(),
    )
    theirs.script = mine._scored.ids
    theirs.train()
    assert logged(mine, "grad_norm") == logged(theirs, "grad_norm") > [0]
    assert torch.equal(parameters(mine), parameters(theirs))


def test_a_run_without_equal_rewards_is_the_run_without_it(tmp_path):
    plain, dynamic = (trained(ours(tmp_path / n, **s)) for n, s in (("a", {}), ("b", {"gcpo_dynamic_sampling": 2})))
    assert torch.equal(parameters(plain), parameters(dynamic))
    assert logged(dynamic, "gcpo/dynamic/rounds") == [0.0] * 3
    assert logged(dynamic, "gcpo/dynamic/tokens") == [8 * n for n in logged(plain, "completions/mean_length")]


def test_where_prompts_run_out_equal_groups_stay(tmp_path):
    settings = {"per_device_train_batch_size": 12, "max_steps": 1, "rounds": 9}
    trainer = run(tmp_path, lambda completions, **_: [1.0] * len(completions), **settings)
    # Three of eight prompts, and then the five others.
    assert logged(trainer, "gcpo/dynamic/rounds") == [2.0]
    assert logged(trainer, "gcpo/dynamic/replaced") == [5.0]
    assert logged(trainer, "gcpo/dynamic/responses") == [4.0 * 8]
    assert logged(trainer, "gcpo/dead_groups") == [1.0]
    assert torch.equal(parameters(trainer), untrained())


@pytest.mark.parametrize("unused", [{}, {"remove_unused_columns": True}], ids=str)
def test_conversations_bring_the_columns_of_their_rows(tmp_path, unused):
    def rewards(completions, prompts, number=None, **_):
        said = [prompt[0]["content"] for prompt in prompts]
        assert number == (None if unused else [int(text[0]) for text in said])
        return half_dead([completion[0]["content"] for completion in completions], said)

    tokens = tiny.tokenizer()
    tokens.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    rows = [{"prompt": [{"role": "user", "content": f"{i}+{i + 1}="}], "number": i} for i in range(8)]
    settings = SETTINGS | {"gcpo_dynamic_sampling": ENOUGH} | unused
    args = GCPOConfig(str(tmp_path), **settings)
    trainer = GCPOTrainer(tiny.model(), rewards, args, Dataset.from_list(rows), processing_class=tokens)
    trainer.train()
    assert sum(logged(trainer, "gcpo/dynamic/replaced")) > 0
    assert logged(trainer, "gcpo/dead_groups") == [0.0] * 3


def test_evaluation_is_as_ever(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "gcpo_dynamic_sampling": 2}
    trainer = trained(ours(tmp_path, half_dead, **settings))
    assert logged(trainer, "eval_gcpo/dead_groups") == [0.5] * 3
    assert not [name for entry in trainer.state.log_history for name in entry if name.startswith("eval_gcpo/dynamic")]


@pytest.mark.parametrize("recipe", ["gcpo-bot", "gcpo"])
def test_geometry_is_that_of_the_responses_that_were_kept(tmp_path, passes, recipe, monkeypatch):
    settings = {"per_device_train_batch_size": 16, "recipe": recipe, "gcpo_dynamic_sampling": 3, "max_steps": 1}
    heard = trained(ours(tmp_path / "a", half_dead, **settings))
    assert not passes
    assert logged(heard, "gcpo/dynamic/rounds") > [1]
    monkeypatch.setattr("gcpo.integrations.trl_measure.GenerationTap.take", lambda *_: None)
    passed = trained(ours(tmp_path / "b", half_dead, **settings))
    assert sum(passes) > 0
    assert heard.last_groups.inputs
    for name, value in heard.last_groups.inputs.items():
        torch.testing.assert_close(value, passed.last_groups.inputs[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("settings", [{"num_iterations": 2}, {"steps_per_generation": 2, "logging_steps": 5}], ids=str)
def test_a_run_is_resumed_bit_for_bit(tmp_path, settings):
    resumes(tmp_path, settings | {"gcpo_dynamic_sampling": 2, "rewards": half_dead})


@pytest.mark.slow
@pytest.mark.parametrize("size", [6, 2])
def test_groups_that_straddle_two_processes(tmp_path, size):
    assert_equal_on_one_and_two(tmp_path, size, recipe="gcpo-bot", gcpo_dynamic_sampling=2)


def test_what_is_expected_of_an_update():
    """E[U] (1 - d^(R+1)) / (1 - d) for each prompt's own update U, and as many groups drawn."""
    G, rounds, N = 3, 2, 6000
    rate = torch.tensor([0.02, 0.5, 0.9, 0.99] * 16, dtype=torch.double)
    rows = [{"prompt": str(i)} for i in range(64)]
    equal = rate**G + (1 - rate) ** G
    factor = ((1 - equal.mean() ** (rounds + 1)) / (1 - equal.mean())).item()
    torch.manual_seed(0)
    updates, groups = torch.zeros(N, 4, dtype=torch.double), []
    for step in range(N):
        start = int(torch.randint(64, ()))
        draws = Draws([rows[start]] * G, torch.arange(G), G, step, torch.zeros(G, 1), torch.ones(1), [0])
        draws.prompts = [row["prompt"] for row in draws.inputs]
        for _ in DynamicSampling(rounds, rows, prompts=1, seed=0).parts(draws):
            prompt = int(draws.prompts[0])
            draws.rewards = (torch.rand(G, 1) < rate[prompt]).float()
        groups.append(1 + draws.noted["replaced"])
        updates[step, prompt % 4] = draws.rewards.var()  # a group's RLOO update along the score of its success
    wanted = factor * rate * (1 - rate)
    error = updates.std(0) / N**0.5
    assert ((updates.mean(0) - wanted[:4] / 4).abs() < 4 * error).all()
    assert np.mean(groups) == pytest.approx(factor, abs=4 * np.std(groups) / N**0.5)
    assert factor > 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gcpo_dynamic_sampling": 0}, "gcpo_dynamic_sampling must be at least 1, found 0"),
        ({"gcpo_first_draws": 2}, "gcpo_dynamic_sampling and gcpo_first_draws both .* leave one out"),
        ({"per_device_train_batch_size": 32}, "other prompts than the 8 of a batch, found 8 in the train dataset"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        ours(tmp_path, **{"gcpo_dynamic_sampling": 2} | settings)


def test_a_streamed_data_set_is_refused():
    with pytest.raises(ValueError, match="cannot be used with a train dataset that is streamed: leave it out"):
        DynamicSampling(2, tiny.dataset().to_iterable_dataset(), prompts=2, seed=0)
