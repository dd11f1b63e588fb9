"""Alignment on pools whose gradients are known."""

from dataclasses import replace

import pytest
import torch

from gcpo import recipe
from gcpo.probe.alignment import Plan, Pool, alignment, by_group_size

PLAN = Plan(prompts=4, group_size=4, batches=80, blocks=4)


def pool(P=32, R=16, F=12, noise=1.0, seed=100):  # a plan of the same seed would draw the same numbers
    """Right answers push along the first axis, every response has noise of its own."""
    g = torch.Generator().manual_seed(seed)
    rewards = (torch.rand(P, R, generator=g) < 0.5).float()
    features = noise * torch.randn(P, R, F, generator=g)
    features[..., 0] += 2 * rewards - 1
    return Pool(features, rewards, {"labels": torch.randint(0, 3, (P, R), generator=g)})


def test_without_noise_every_update_points_to_the_truth():
    result = alignment(pool(noise=0.0), {"grpo": recipe("grpo"), "dr-grpo": recipe("dr-grpo")}, PLAN)
    for row in result.values():
        assert row["cosine"] == pytest.approx(1.0, abs=1e-5)
        assert row["relative"]["value"] == pytest.approx(0.0, abs=1e-5)


def test_the_reference_gains_nothing_over_itself():
    row = alignment(pool(), {"grpo": recipe("grpo")}, PLAN)["grpo"]
    assert row["relative"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_a_recipe_that_hears_less_noise_is_found_to():
    """Half of the responses have ten times the noise and scores that tell; damping hears them less."""
    loud = pool(P=64)
    wild = torch.rand(loud.rewards.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    features = torch.where(wild.unsqueeze(-1), 10 * loud.features, loud.features)
    inputs = {"scores": features}
    recipes = {"grpo": recipe("grpo"), "damped": recipe("grpo", damping=1.0)}
    row = alignment(Pool(features, loud.rewards, inputs), recipes, PLAN)["damped"]
    assert row["relative"]["ci95"][0] > 0


def test_flipped_rewards_align_worse_with_the_clean_truth():
    clean = alignment(pool(), {"grpo": recipe("grpo")}, PLAN)["grpo"]["cosine"]
    noisy = alignment(pool(), {"grpo": recipe("grpo")}, replace(PLAN, flip=0.3))["grpo"]["cosine"]
    assert 0 < noisy < 0.8 * clean


def test_truth_and_batch_share_no_response():
    """With gradients of pure noise the cosine is 0 on average; a shared response would make it positive."""
    g = torch.Generator().manual_seed(100)
    noise = Pool(torch.randn(32, 8, 64, generator=g), (torch.rand(32, 8, generator=g) < 0.5).float(), {})
    cosines = [
        alignment(noise, {"grpo": recipe("grpo")}, Plan(prompts=8, group_size=4, blocks=4, seed=seed))["grpo"][
            "cosine"
        ]
        for seed in range(6)
    ]
    assert abs(sum(cosines) / 6) < 0.06


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(prompts=4, group_size=9, blocks=4), "groups of 9 need twice as many responses"),
        (Plan(prompts=16, group_size=4, blocks=4), "need 64 prompts, found 32"),
    ],
)
def test_a_pool_that_is_too_small_is_refused(plan, message):
    with pytest.raises(ValueError, match=message):
        alignment(pool(), {"grpo": recipe("grpo")}, plan)
    with pytest.raises(ValueError, match="the reference must be one of rloo, found 'grpo'"):
        alignment(pool(), {"rloo": recipe("rloo")}, PLAN)


def test_a_response_without_a_reward_is_in_neither_truth_nor_batch():
    whole = pool(noise=0.0)
    some = whole.rewards.clone()
    some[::3, 1] = torch.nan
    for flip in (0.0, 0.25):
        row = alignment(replace(whole, rewards=some), {"grpo": recipe("grpo")}, replace(PLAN, flip=flip))["grpo"]
        assert row["cosine"] > (0.9 if flip else 1 - 1e-5)


def test_group_sizes_are_compared_at_equal_numbers_of_responses():
    table = by_group_size(
        pool(P=64, noise=0.0), recipe("grpo"), Plan(prompts=8, group_size=4, blocks=4), [2, 4, 8, 16]
    )
    assert list(table) == ["16 x 2", "8 x 4", "4 x 8"], "16 are more than half of a prompt's responses"
    assert table["8 x 4"]["relative"]["value"] == 0
    assert all(row["cosine"] == pytest.approx(1.0, abs=1e-5) for row in table.values())


def test_a_batch_of_one_prompt_has_no_larger_groups():
    table = by_group_size(pool(), recipe("grpo"), Plan(prompts=1, group_size=4, batches=8, blocks=4), [2, 4, 8])
    assert list(table) == ["2 x 2", "1 x 4"]
