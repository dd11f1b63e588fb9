"""What TRL's trainer can do works with every recipe: the table in docs/trl.md, a row each."""

import math
import re
from pathlib import Path

import pytest
import torch

from gcpo import RECIPES, GCPOTrainer
from tests import tiny
from tests.integrations.test_trl import logged, ours

TABLE = (Path(__file__).parents[2] / "docs" / "trl.md").read_text()


class StandIn:
    """In vLLM's place: random tokens with the log-probabilities of a uniform draw, and a count of weights sent."""

    def __init__(self, **given):
        self.mode, self.sent = given["mode"], 0
        self.vllm_client = self

    def get_server_info(self):
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def sync_weights(self):
        self.sent += 1

    def generate(self, prompts, **_):
        said = [torch.randint(3, 95, (3 + i % 7,)).tolist() for i in range(len(prompts))]
        return prompts, said, [[[-math.log(92)] for _ in one] for one in said], None


def length(completions, **_):
    return [None if not c else min(len(c) / 12, 1.0) for c in completions]


def adapters():
    peft = pytest.importorskip("peft")
    return {"peft_config": peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")}


EVALUATION = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
ROWS = {
    "LoRA": {},
    "gradient accumulation": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    "several rewards": {"reward_weights": [1.0, 0.5], "gcpo_reward_range": 1.5},
    "num_iterations=2": {"num_iterations": 2},
    "evaluation": EVALUATION,
    "vLLM server (a stand-in)": {"use_vllm": True, "vllm_mode": "server"},
    "all but vLLM at once": {
        "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "reward_weights": [1.0, 0.5],
        "gcpo_reward_range": 1.5, "num_iterations": 2, **EVALUATION,
    },
}  # fmt: skip


def train(directory, row, recipe, monkeypatch):
    settings = {"max_steps": 2, "recipe": recipe} | ROWS[row]
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", StandIn)
    built = GCPOTrainer.__init__
    if row in ("LoRA", "all but vLLM at once"):
        extra = adapters()
        monkeypatch.setattr(GCPOTrainer, "__init__", lambda self, *a, **k: built(self, *a, **k | extra))
    rewards = [tiny.spread, length] if "reward_weights" in settings else tiny.spread
    trainer = ours(directory, rewards, **settings)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    return trainer, before


def assert_works(trainer, before, row):
    moved = [name for name, p in trainer.model.named_parameters() if name in before and not p.equal(before[name])]
    assert moved
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    for metric in ("gcpo/weight/mean", "gcpo/dead_groups", "gcpo/overhead_s"):
        assert all(map(math.isfinite, logged(trainer, metric)))
        assert logged(trainer, metric)
    if ROWS[row].get("eval_strategy"):
        assert len(logged(trainer, "eval_gcpo/dead_groups")) == 2
    if row == "LoRA":
        assert all("lora" in name for name in before)
    if "use_vllm" in ROWS[row]:
        assert trainer.vllm_generation.sent == 2


@pytest.mark.parametrize("row", ROWS)
def test_with_the_default_recipe(tmp_path, monkeypatch, row):
    assert_works(*train(tmp_path, row, "gcpo-bot", monkeypatch), row)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "gcpo-bot"])
@pytest.mark.parametrize("row", ROWS)
def test_with_every_recipe(tmp_path, monkeypatch, row, recipe):
    assert_works(*train(tmp_path, row, recipe, monkeypatch), row)


def test_the_table_has_the_rows_that_are_run():
    section = TABLE.partition("## Together with")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (.+?) \|", section, re.M)[1:] == list(ROWS)
