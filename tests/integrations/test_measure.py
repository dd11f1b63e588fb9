"""What is measured of a batch on TRL: no more than is needed, on every process, and nothing kept while it trains."""

from contextlib import nullcontext

import pytest
import torch
from datasets import Dataset, IterableDataset

from gcpo import GCPOConfig, GCPOTrainer
from gcpo.integrations.trl import _has_images
from gcpo.semantics.policy import backbone_of
from tests import tiny
from tests.integrations.test_overheard import OLD, elsewhere
from tests.integrations.test_packing import half_dead
from tests.integrations.test_trl import SETTINGS, ours, trained


@pytest.mark.parametrize("settings", [{"gcpo_first_draws": 2, "per_device_train_batch_size": 16}, {}], ids=str)
def test_no_states_are_kept_while_the_model_trains(tmp_path, settings):
    trainer = trained(ours(tmp_path, half_dead, **settings))
    assert trainer._heard == trainer._generation._states == []


def test_no_states_of_the_hosts_pass_are_kept_while_the_model_trains(tmp_path):
    assert elsewhere(tmp_path, mask_truncated_completions=True, **OLD)._passed is None


def test_an_evaluation_without_groups_leaves_nothing(tmp_path):
    trainer = ours(tmp_path, num_generations_eval=1, per_device_eval_batch_size=4)
    trainer.evaluate()
    assert not trainer._generation._states


def test_a_process_that_drew_nothing_has_vectors_as_long_as_the_others(tmp_path, passes):
    trainer = ours(tmp_path, gcpo_first_draws=2, gcpo_log_signals=["score_dispersion", "cosine_dispersion"])
    rows = (torch.ones(4, 3, dtype=torch.long), torch.ones(4, 3, dtype=torch.long))
    rows += (torch.full((4, 1), 2), torch.ones(4, 1, dtype=torch.bool), torch.ones(4, 1, dtype=torch.bool))
    backbone = backbone_of(trainer.model)
    expected = trainer._measure(trainer.model, backbone, *rows)
    passes.clear()
    trainer._heard = []
    trainer.hear(torch.zeros(0, dtype=torch.long), [])
    heard = [(part[0], part[-1]) for part in trainer._heard]
    found = trainer._of_parts(heard, trainer.model, backbone, *rows)
    assert passes == [1]
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in expected.items()}


def test_steps_behind_a_tool_are_kept(tmp_path, monkeypatch):
    trainer = ours(tmp_path)
    points = torch.arange(1.0, 17).view(2, 4, 2)
    exist = torch.tensor([[True, False, True, False], [True, False, False, False]])
    monkeypatch.setattr(trainer, "_measure_policy", lambda *_: {"points": points, "point_mask": exist})
    found = trainer.measured({"advantages": torch.zeros(2)}, [], [], torch.ones(2, dtype=torch.bool))
    assert found["point_mask"].tolist() == exist[:, :3].tolist()
    assert torch.equal(found["points"], points[:, :3])


def rows():
    yield {"prompt": "1+2=", "image": "none"}


def test_images_are_found_by_columns_or_by_the_first_row():
    assert _has_images(Dataset.from_list(list(rows())))
    assert _has_images(IterableDataset.from_generator(rows))
    assert not _has_images(tiny.dataset())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the policy's scores cannot be had for responses to images: choose a recipe and signals"),
        ({"recipe": "gcpo-bot"}, "the policy's points cannot be had for responses to images"),
        ({"recipe": "grpo", "gcpo_first_draws": 2}, "gcpo_first_draws cannot be used with images: leave it out"),
        ({"recipe": "grpo"}, None),
    ],
    ids=str,
)
def test_images_are_refused_before_work_starts(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        GCPOTrainer(
            model=tiny.model(),
            reward_funcs=tiny.spread,
            args=GCPOConfig(str(tmp_path), **SETTINGS | settings),
            train_dataset=Dataset.from_list(list(rows())),
            processing_class=tiny.tokenizer(),
        )
