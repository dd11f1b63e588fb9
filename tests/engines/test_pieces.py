"""The pieces of docs/engines.md around the released code of SkyRL, OpenRLHF and AReaL; run by ``tests/engines/run``.

None of these engines starts without GPUs, so their packages are installed without dependencies, and of each only the
modules that make advantages are executed: packages without their ``__init__``, and stand-ins for what needs a GPU's
libraries. What the pieces wrap is the engine's own.
"""

import functools
import re
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from gcpo import recipe

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("skyrl", "openrlhf", "areal"))), reason="needs the engines: tests/engines/run"
)

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
REWARDS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
LOG_PROBS = -torch.arange(1.0, 9.0).view(2, 2, 2)  # two prompts, two responses each, two tokens each
STEERED = recipe("gcpo-surprisal")(REWARDS, log_probs=LOG_PROBS.sum(-1)).advantages


class Light(MetaPathFinder, Loader):
    """Finds an engine's packages without executing their ``__init__``, and stand-ins for what is absent."""

    def __init__(self, engine, *absent):
        self.engine, self.absent = engine, absent

    def find_spec(self, name, path=None, target=None):
        if any(name == left or name.startswith(f"{left}.") for left in self.absent):
            return ModuleSpec(name, self, is_package=True)
        spec = PathFinder.find_spec(name, path) if name.split(".")[0] == self.engine else None
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec.loader = self
        return spec

    def create_module(self, spec):
        return MagicMock(name=spec.name) if spec.origin is None else None

    def exec_module(self, module):
        pass


@pytest.fixture
def light(monkeypatch):
    """Import a module of an engine, light."""

    def load(name, *absent):
        engine = name.split(".")[0]
        for known in [m for m in sys.modules if m.split(".")[0] == engine]:
            monkeypatch.delitem(sys.modules, known)
        monkeypatch.setattr(sys, "meta_path", [Light(engine, *absent), *sys.meta_path])
        return import_module(name)

    return load


@pytest.fixture(scope="module")
def pieces():
    """The page's own code, as its reader would paste it."""
    namespace = {}
    exec(re.search(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL).group(1), namespace)
    return SimpleNamespace(**namespace)


@pytest.mark.parametrize(("engine", "package"), [("SkyRL", "skyrl"), ("OpenRLHF", "openrlhf"), ("AReaL", "areal")])
def test_the_page_names_the_installed_version(engine, package):
    assert f"| {engine} {version(package)} |" in PAGE


def test_skyrls_registry_takes_the_estimator(light, pieces):
    utils = light("skyrl.backends.skyrl_train.utils.ppo_utils", "skyrl.train.config")
    utils.register_advantage_estimator("gcpo")(pieces.estimate)
    mask = torch.ones(4, 3)
    mask[1, 0] = 0
    rewards = torch.zeros(4, 3)
    rewards[:, -1] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    given = {"token_level_rewards": rewards, "response_mask": mask, "index": np.array(["a", "b", "a", "b"])}
    ours, theirs = (
        utils.compute_advantages_and_returns(**given, adv_estimator=name, config=None)[0] for name in ("gcpo", "rloo")
    )
    torch.testing.assert_close(ours, theirs)
    assert ours.abs().sum() > 0


def test_openrlhfs_method_is_steered(light, pieces, monkeypatch):
    absent = ("deepspeed", "bitsandbytes", "flash_attn", "openrlhf.trainer.ray", "openrlhf.utils")
    made = light("openrlhf.trainer.ppo_utils.experience_maker", *absent)
    Maker, Experience = made.RemoteExperienceMaker, made.Experience
    monkeypatch.setattr(
        Maker,
        "compute_advantages_and_returns",
        functools.partialmethod(pieces.openrlhf, Maker.compute_advantages_and_returns),
    )
    space = SimpleNamespace
    advantage = space(estimator="rloo", gamma=1.0, lambd=1.0, no_std_norm=True)
    reward = space(clip_range=None, overlong_buffer_len=None, stop_properly_penalty_coef=None)
    args = space(rollout=space(n_samples_per_prompt=2), reward=reward, algo=space(advantage=advantage))
    maker = Maker.__new__(Maker)
    maker.advantage_estimator, maker.kl_ctl, maker.strategy = "rloo", space(value=0.0), space(args=args)
    order = torch.tensor([3, 0, 2, 1])
    experiences = [
        Experience(
            index=rows.tolist(),
            rewards=REWARDS.flatten()[rows],
            action_mask=torch.ones(2, 2),
            kl=torch.zeros(2, 2),
            action_log_probs=LOG_PROBS.flatten(0, 1)[rows],
            info={},
        )
        for rows in order.split(2)
    ]
    found = torch.cat([e.advantages for e in maker.compute_advantages_and_returns(experiences)])
    torch.testing.assert_close(found, STEERED.flatten()[order].unsqueeze(-1).expand(4, 2))


def test_areals_method_is_steered(light, pieces, monkeypatch):
    theirs = ("api", "infra", "experimental", "trainer.ppo.stats", "utils.functional")
    absent = (*(f"areal.{name}" for name in theirs), "numba", "torchdata")
    actor = light("areal.trainer.ppo.actor", *absent)
    Actor = actor.PPOActor
    monkeypatch.setattr(Actor, "compute_advantages", functools.partialmethod(pieces.areal, Actor.compute_advantages))
    me = Actor.__new__(Actor)
    me.config = SimpleNamespace(overlong_reward_penalty=False, use_decoupled_loss=False, recompute_logprob=False)
    vars(me).update(reward_bias=0.0, reward_scaling=1.0, reward_clip=9.0, reward_norm=None, adv_norm=None, kl_ctl=0.0)
    vars(me).update(kl_estimator=torch.sub, mask_no_eos_with_zero=False, discount=1.0, gae_lambda=1.0)
    prompts = [  # two tokens of a prompt before two of each response
        {
            "input_ids": torch.ones(2, 4, dtype=torch.long),
            "attention_mask": torch.ones(2, 4, dtype=torch.long),
            "loss_mask": torch.tensor([[0, 0, 1, 1]] * 2),
            "logprobs": torch.cat([torch.zeros(2, 2), log_probs], dim=1),
            "rewards": rewards,
        }
        for rewards, log_probs in zip(REWARDS, LOG_PROBS, strict=True)
    ]
    found = torch.stack([prompt["advantages"] for prompt in me.compute_advantages(prompts)])
    trains = torch.tensor([0.0, 1.0, 1.0, 0.0])  # AReaL's tokens answer for the one after them
    torch.testing.assert_close(found, STEERED.unsqueeze(-1) * trains)
