"""Every kind of ``GCPOConfig`` field can be set, and what cannot be carried out is said before work starts."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from gcpo import recipe
from gcpo.experiment.resolve import resolve
from gcpo.experiment.settings import TrainSettings, UsageError
from gcpo.experiment.train import build_config, train
from gcpo.integrations.driver import Options
from gcpo.integrations.trl_config import GCPOConfig
from gcpo.recipes import Recipe
from gcpo.tasks import get_task
from gcpo.tasks.posed import Posed
from gcpo.tasks.rewards import parse


def config(*words):
    return build_config(resolve(TrainSettings, {}, None, words), get_task("chain"), output=Path("out"))


SOME = ["semantic_entropy", "cosine_dispersion"]


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("learning_rate=3e-4", "learning_rate", 3e-4),
        ("weight_decay=-1e-3", "weight_decay", -1e-3),
        ("bf16=false", "bf16", False),
        ("gcpo_alpha=2", "gcpo_alpha", 2.0),
        ("gcpo_alpha=null", "gcpo_alpha", None),
        ("gcpo_renormalize=false", "gcpo_renormalize", False),
        ("gcpo_log_signals=[]", "gcpo_log_signals", []),
        (f"gcpo_log_signals={','.join(SOME)}", "gcpo_log_signals", SOME),
        ("gcpo_log_signals=[semantic_entropy]", "gcpo_log_signals", ["semantic_entropy"]),
        ("lr_scheduler_kwargs={num_cycles: 2}", "lr_scheduler_kwargs", {"num_cycles": 2}),
        ("max_completion_length=9", "max_completion_length", 9),
        ("seed=7", "seed", 7),
        ("save_strategy=no", "save_strategy", "no"),
        ("gcpo_steps=sentences", "gcpo_steps", "sentences"),
        ("gcpo_equivalence=cosine:0.8", "gcpo_equivalence", "cosine:0.8"),
    ],
)  # fmt: skip
def test_any_field_can_be_set(word, name, value):
    assert getattr(config(word), name) == value


PARTS = {
    "base": "dr-grpo",
    "signal": "effective_rank",
    "calibration": "product",
    "modulation": "focal",
    "alpha": 0.0,
    "scale": 3.0,
    "damping": 0.0,
    "damping_below": 0.0,
    "norms": "surprisal",
    "renormalize": False,
    "reward_range": 2.0,
}


@pytest.mark.parametrize(("part", "value"), PARTS.items())
def test_every_part_of_a_recipe_reaches_it_on_both_hosts(part, value):
    assert {*PARTS, "name", "source"} == {f.name for f in fields(Recipe)}
    wanted = recipe("gcpo", **{"reward_range": 1.0, part: value})
    assert config(f"gcpo_{part}={json.dumps(value)}").build_recipe() == wanted
    assert Options(recipe="gcpo", **{"reward_range": 1.0, part: value}).build_recipe() == wanted


def test_the_range_of_rewards_is_the_tasks():
    chain = get_task("chain")
    task = Posed(chain, parse(["task", "-0.5*length:9"], chain))
    assert build_config(TrainSettings(), task, Path("out")).gcpo_reward_range == 1.5
    assert build_config(TrainSettings(), task, Path("out")).build_recipe().reward_range == 1.5


def test_epochs_replace_the_default_steps():
    assert config("num_train_epochs=2").max_steps == -1
    assert config("num_train_epochs=2", "max_steps=5").max_steps == 5


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("output_dir=/tmp", "output_dir is set by the run directory: choose that with --output"),
        ("gcpo_modulation=cubic", "modulation must be one of"),
        ("max_stepz=3", "there is no setting 'max_stepz'; did you mean 'max_steps'"),
        ("max_steps=three", "max_steps: invalid int value: 'three'"),
    ],
)
def test_what_cannot_be_set_is_named(word, message):
    with pytest.raises(UsageError, match=message):
        config(word)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"gcpo train is one process, found WORLD_SIZE=2: launch a script"):
        config()


def test_several_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(GCPOConfig, "n_gpu", 2)
    with pytest.raises(UsageError, match=r"gcpo train takes one GPU, found 2: set CUDA_VISIBLE_DEVICES"):
        config()


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({}, "training takes 32 prompts a step, but"),
        (
            {"per_device_train_batch_size": 8, "gcpo_dynamic_sampling": 1},
            "takes 2 prompts a step and others in",
        ),
    ],
    ids=str,
)
def test_too_few_prompts_for_one_step_end_before_anything_is_made(tmp_path, trainer, message):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"{i}", "answer": i}) for i in range(3)))
    settings = TrainSettings(data=str(data), trainer=trainer)
    with pytest.raises(UsageError, match=rf"{message}.* rows\.jsonl has 2"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_chat_needs_a_template(tmp_path):
    with pytest.raises(UsageError, match="chat=true needs a chat template"):
        train(TrainSettings(chat=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
