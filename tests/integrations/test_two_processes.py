"""Two processes end where one does, with groups that straddle them and different numbers of rows left out on each."""

import json

import pytest
import torch

from tests.integrations.launched import launch


def run(output, processes, **settings):
    output.mkdir()
    launch("-m", "tests.integrations.ranks", output, json.dumps(settings), processes=processes)
    return torch.load(output / "end.pt", weights_only=True)


def assert_equal_on_one_and_two(tmp_path, size, **settings):
    settings = {"num_generations": 4, "max_steps": 4, **settings}
    one = run(tmp_path / "one", 1, per_device_train_batch_size=2 * size, **settings)
    two = run(tmp_path / "two", 2, per_device_train_batch_size=size, **settings)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert (one["parameters"] - two["parameters"]).abs().max() < 1e-6
    parts = {name for entry in one["log"] for name in entry if name.startswith(("gcpo/first_draws", "gcpo/dynamic"))}
    parts -= {"gcpo/first_draws/tokens_saved"}  # as long as the row before, which may be another process's
    for name in ("gcpo/dead_groups", "gcpo/weight/max", "gcpo/grad/variance", "gcpo/grad/snr", *parts):
        values = [[entry[name] for entry in found["log"] if name in entry] for found in (one, two)]
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-9), name
        assert values[0], name


def test_a_group_that_straddles_two_processes(tmp_path):
    assert_equal_on_one_and_two(tmp_path, 6, recipe="gcpo-bot")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["grpo", "dr-grpo", "rloo", "seed-grpo", "gcpo-cd", "gcpo", "gcpo-surprisal"])
def test_every_recipe(tmp_path, recipe):
    assert_equal_on_one_and_two(tmp_path, 6, recipe=recipe)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "luspo", "dapo"])
def test_losses_by_rows_and_by_tokens(tmp_path, loss):
    assert_equal_on_one_and_two(tmp_path, 6, recipe="grpo", loss_type=loss)


@pytest.mark.slow
def test_several_micro_batches(tmp_path):
    assert_equal_on_one_and_two(tmp_path, 4, recipe="gcpo-bot", gradient_accumulation_steps=3)
