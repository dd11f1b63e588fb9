"""The plug-in inside verl itself: loading, both trainers' advantage steps, the engine's forward pass."""

import copy
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("verl")

from omegaconf import OmegaConf
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorStack
from verl import DataProto
from verl.trainer.ppo import core_algos, ray_trainer
from verl.trainer.ppo.v1 import trainer_base
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp import transformer_impl

from gcpo.integrations import verl as plugin
from gcpo.integrations.driver import Driver, Options
from gcpo.integrations.vectors import pack
from gcpo.policies.pretrain import build_tokenizer
from gcpo.semantics import HashedNgrams
from tests.integrations.hosted import GOLDEN, Flat

TOKENIZER = build_tokenizer()
close = {"atol": 1e-6, "rtol": 1e-6}


def algorithm(estimator="grpo", **gcpo):
    given = {"adv_estimator": estimator, "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0}
    return OmegaConf.create(given | ({"gcpo": gcpo} if gcpo else {}))


# Loading


def test_importing_verl_loads_the_plug_in_and_nothing_else_of_gcpo():
    code = "import verl, sys; print(sorted(name for name in sys.modules if name.startswith(('gcpo', 'trl'))))"
    environment = {"PATH": "/usr/bin:/bin", "VERL_PLATFORM": "nvidia"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    found = done.stdout.strip().splitlines()[-1]
    assert found == "['gcpo', 'gcpo.integrations', 'gcpo.integrations.verl']"


@pytest.mark.parametrize("module", [trainer_base, ray_trainer, transformer_impl], ids=lambda m: m.__name__)
def test_verl_still_has_what_we_wrap(module):
    plugin.check_hooks(module)


def test_what_imported_the_legacy_function_by_name_has_the_wrapped_one():
    from verl.trainer.ppo.v1 import utils

    assert utils.compute_advantage is ray_trainer.compute_advantage
    assert hasattr(ray_trainer.compute_advantage, "__wrapped__")


def test_the_name_of_an_estimator_alone_is_no_way_in():
    estimate = core_algos.get_adv_estimator_fn("gcpo")
    for config in (algorithm(), algorithm(enable=False), algorithm(base="verl")):
        with pytest.raises(ValueError, match="leaves all to the recipe"):
            estimate(token_level_rewards=None, response_mask=torch.ones(2, 3), config=config)


def test_verl_refuses_that_name_where_the_plug_in_is_not_loaded():
    code = "from verl.trainer.ppo import core_algos; core_algos.get_adv_estimator_fn('gcpo')"
    environment = {"PATH": "/usr/bin:/bin", "VERL_PLATFORM": "nvidia", "VERL_USE_EXTERNAL_PLUGINS": "none"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "gcpo" in done.stderr.splitlines()[-1]
    assert done.returncode == 1


def test_verl_refuses_to_start_where_the_plug_in_is_asked_for_by_name_and_cannot_be_had(tmp_path):
    hidden = tmp_path / "sitecustomize.py"  # an environment without gcpo
    hidden.write_text("import sys; sys.modules['gcpo'] = None")
    asked = {"VERL_USE_EXTERNAL_MODULES": "gcpo.integrations.verl"}
    for environment, message in (({}, ""), (asked, "gcpo")):
        environment = {"PATH": "/usr/bin:/bin", "VERL_PLATFORM": "nvidia", "PYTHONPATH": str(tmp_path)} | environment
        command = [sys.executable, "-c", "import verl"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode == 1) == bool(message), done.stderr
        assert message in done.stderr


def test_ray_actors_find_what_the_driver_alone_finds():
    ray = pytest.importorskip("ray")
    flat = Flat(GOLDEN["gcpo-bot"]["texts"], GOLDEN["gcpo-bot"]["rewards"])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        alone, shared = (Driver(Options(log_signals=["semantic_entropy"], workers=n))(flat) for n in (0, 2))
    finally:
        ray.shutdown()
    torch.testing.assert_close(shared.values, alone.values, **close)
    for name, value in alone.outcome.signals.items():
        torch.testing.assert_close(shared.outcome.signals[name], value, **close)


def test_that_name_with_the_flag_gives_the_recipes_advantages(monkeypatch):
    rows, expected = golden_rows("gcpo-bot")
    found = v1_step(monkeypatch, rows, {"recipe": "gcpo-bot"}, estimator="gcpo")[0]
    for key, value in expected.items():
        torch.testing.assert_close(found[key]["advantages"], torch.full_like(found[key]["advantages"], value), **close)


# Options, as Hydra gives them


def test_options_of_omegaconf_reach_the_recipe():
    driver = plugin.driver_of(algorithm(recipe="gcpo-cd", alpha=2, log_signals=["semantic_entropy"]))
    assert driver.recipe.alpha == 2
    assert driver.needs == {"embeddings", "labels"}
    assert plugin.driver_of(algorithm()) is None
    assert plugin.driver_of(algorithm(enable=False)) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (algorithm(alhpa=1.0), "algorithm.gcpo.alhpa is no option"),
        (algorithm(alpha=-1.0), "algorithm.gcpo.alpha must be at least 0"),
        (algorithm(recipe="ppo"), "algorithm.gcpo.recipe must be one of"),
        (OmegaConf.create({"gcpo": True}), "must hold options"),
        (OmegaConf.merge(algorithm(enable=True), {"use_kl_in_reward": True}), "use_kl_in_reward would be lost"),
        (algorithm("gae", enable=True), "adv_estimator=gae trains a critic"),
        (OmegaConf.merge(algorithm("gae", base="verl"), {"use_pf_ppo": True}), "use_pf_ppo"),
        (
            OmegaConf.merge(algorithm(embedder="policy"), {"rollout_correction": {"bypass_mode": True}}),
            "points come from the actor's forward pass",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_said_before_work_starts(config, message):
    with pytest.raises(ValueError, match=message):
        plugin.driver_of(config)


# The V1 trainer, on a queue that is a dictionary


class Queue:
    """As much of TransferQueue as the advantage step uses."""

    def __init__(self, rows):
        self.rows = rows

    def kv_batch_get(self, keys, partition_id, select_fields):
        there = [name for name in select_fields if all(name in self.rows[key] for key in keys)]
        fields = {name: self.stack([self.rows[key][name] for key in keys]) for name in there}
        return TensorDict(fields, batch_size=len(keys))

    def kv_batch_put(self, keys, partition_id, fields):
        for name in fields.keys():  # noqa: SIM118  a TensorDict
            for key, value in zip(keys, fields[name].unbind(), strict=True):
                self.rows[key][name] = value
        return self.meta

    @staticmethod
    def stack(values):
        if isinstance(values[0], torch.Tensor):
            return torch.nested.as_nested_tensor(values, layout=torch.jagged)
        return NonTensorStack.from_list(values)


class Trainer(trainer_base.PPOTrainer):
    """verl's own methods without its workers."""

    def __init__(self, config):
        self.config, self.tokenizer = config, TOKENIZER

    on_step_end = on_sample_end = lambda self: None


def v1_row(text, reward, mask=1, **extra):
    ids = torch.tensor(TOKENIZER(text, add_special_tokens=False)["input_ids"])
    scores = torch.zeros(len(ids))
    scores[-1] = reward
    return {
        "uid": "?",
        "responses": ids,
        "response_mask": torch.full((len(ids),), mask),
        "loss_mask": torch.ones(len(ids), dtype=torch.long),
        "rm_scores": scores,
        "old_log_probs": torch.full((len(ids),), -0.5),
        "extra_fields": extra,
    }


def measured(row, groups, b, g):
    """The row with what the golden file says of the actor's pass."""
    if "log_probs" in groups:
        row["old_log_probs"] = torch.zeros(len(row["responses"]))
        row["old_log_probs"][-1] = groups["log_probs"][b][g]
    if "scores" in groups:
        row["gcpo_scores"] = torch.tensor(groups["scores"][b][g])
    return row


def v1_step(monkeypatch, rows, steered=None, estimator="grpo"):
    """Run the advantage step; rows by key, one of them padding if its key starts so."""
    rows = copy.deepcopy(rows)
    for key, row in rows.items():
        row["uid"] = key.rsplit("_", 2)[0]
    queue = Queue(rows)
    tags = [{"is_padding": key.startswith("pad")} for key in rows]
    fields = ["responses", "gcpo_points"]
    queue.meta = trainer_base.KVBatchMeta(partition_id="train", keys=list(rows), tags=tags, fields=fields)
    monkeypatch.setattr(trainer_base, "tq", queue)
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"n": 4, "temperature": 1.0}}})
    config.algorithm = algorithm(estimator, **(steered or {}))
    trainer, metrics = Trainer(config), {}
    trainer._compute_advantage(queue.meta, metrics)
    return rows, metrics, trainer, queue.meta


def golden_rows(name):
    groups, G = GOLDEN[name], len(GOLDEN[name]["rewards"][0])
    rewards = torch.tensor(groups["rewards"]).flatten().tolist()
    rows = {
        f"u{i // G}_{i % G}_0": measured(v1_row(t, r), groups, i // G, i % G)
        for i, (t, r) in enumerate(zip(groups["texts"], rewards, strict=True))
    }
    keys = list(rows)
    np.random.default_rng(0).shuffle(keys)
    rows = {key: rows[key] for key in keys} | {"padab_0_0": v1_row("x", 7.0, mask=0)}
    expected = {f"u{b}_{g}_0": a for b, group in enumerate(groups["advantages"]) for g, a in enumerate(group)}
    return rows, expected


@pytest.mark.parametrize("name", GOLDEN)
def test_v1_gives_the_advantages_that_trl_gave(monkeypatch, name):
    rows, expected = golden_rows(name)
    assert all(TOKENIZER.decode(row["responses"]) in GOLDEN[name]["texts"] for row in list(rows.values())[:-1])
    found, metrics, _, meta = v1_step(monkeypatch, rows, {"recipe": name, "max_points": 8})
    for key, value in expected.items():
        assert found[key]["advantages"].shape == rows[key]["responses"].shape
        torch.testing.assert_close(found[key]["advantages"], torch.full_like(found[key]["advantages"], value), **close)
    assert found["padab_0_0"]["advantages"].tolist() == [0.0]
    assert metrics["gcpo/weight/mean"] == pytest.approx(1.0)
    assert meta.fields == ["responses"]  # the update of the actor does not fetch what has done its work


def test_without_the_flag_v1_is_left_alone(monkeypatch):
    rows, _ = golden_rows("gcpo-bot")
    found, metrics, trainer, meta = v1_step(monkeypatch, rows)
    plain = trainer_base.PPOTrainer._compute_advantage.__wrapped__
    before = {key: row["advantages"] for key, row in found.items()}
    plain(trainer, meta, {})
    assert all(torch.equal(before[key], row["advantages"]) for key, row in found.items())
    assert not metrics


def test_base_verl_scales_what_the_estimator_says(monkeypatch):
    rows, _ = golden_rows("gcpo-bot")
    plain = v1_step(monkeypatch, rows)[0]
    found = v1_step(monkeypatch, rows, {"recipe": "gcpo-bot", "base": "verl"})[0]
    for group, weight in enumerate(GOLDEN["gcpo-bot"]["weights"]):
        for key in found:
            if key.startswith(f"u{group}_"):
                torch.testing.assert_close(found[key]["advantages"], plain[key]["advantages"] * weight, **close)


def test_sessions_of_several_outputs_and_rejected_rows(monkeypatch):
    rows = {
        "u_0_1": v1_row("the last\nof two", 1.0),
        "u_0_0": v1_row("the first", 1.0),
        "u_1_0": v1_row("alone", 0.0),
        "u_2_0": v1_row("rejected", 1.0, mask=0),
        "w_with_underscores_0_0": v1_row("lonely", 0.4),
    }
    found = v1_step(monkeypatch, rows, {"recipe": "dr-grpo"})[0]
    values = {key: set(row["advantages"].tolist()) for key, row in found.items()}
    assert values == {"u_0_1": {0.5}, "u_0_0": {0.5}, "u_1_0": {-0.5}, "u_2_0": {0.0}, "w_with_underscores_0_0": {0.0}}


def test_masked_tokens_of_a_row_that_trains_get_nothing(monkeypatch):
    rows = {"u_0_0": v1_row("abcd", 1.0), "u_1_0": v1_row("ef", 0.0)}
    rows["u_0_0"]["response_mask"] = torch.tensor([1, 0, 1, 1])
    found = v1_step(monkeypatch, rows, {"recipe": "dr-grpo"})[0]
    assert found["u_0_0"]["advantages"].tolist() == [0.5, 0.0, 0.5, 0.5]


def test_a_nan_reward_leaves_its_group_to_the_others(monkeypatch):
    rows = {"u_0_0": v1_row("a", float("nan")), "u_1_0": v1_row("b", 1.0), "u_2_0": v1_row("c", 0.0)}
    for steered in ({"recipe": "dr-grpo"}, {"recipe": "dr-grpo", "base": "verl"}):
        assert v1_step(monkeypatch, rows, steered)[0]["u_0_0"]["advantages"].tolist() == [0.0]


def test_vectors_come_from_the_reward_function(monkeypatch):
    texts, embedder = ["one 1", "two 2", "3 three", "four"], HashedNgrams()
    vectors = [pack(v) for v in embedder.embed(texts)]
    rows = {
        f"u_{i}_0": v1_row(text, i % 2, reward_extra_info={"score": i % 2, "gcpo_embedding": vector})
        for i, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    }
    hashed = v1_step(monkeypatch, rows, {"recipe": "gcpo-cd"})[1]
    colocated = {
        key: row | {"extra_fields": {}, "gcpo_embedding": row["extra_fields"]["reward_extra_info"]["gcpo_embedding"]}
        for key, row in rows.items()
    }
    for returned in (rows, colocated):
        given = v1_step(monkeypatch, returned, {"recipe": "gcpo-cd", "embedder": "reward"})[1]
        name = "gcpo/signal/cosine_dispersion"
        assert given[name] == pytest.approx(hashed[name], abs=1e-7)
    with pytest.raises(ValueError, match="needs 'gcpo_points' from the reward function, which 4 of 4"):
        v1_step(monkeypatch, rows, {"recipe": "gcpo-bot", "embedder": "reward"})


def test_states_that_no_engine_gave_are_an_error(monkeypatch):
    rows, _ = golden_rows("gcpo-cd")
    with pytest.raises(ValueError, match="embeddings of the policy did not come"):
        v1_step(monkeypatch, rows, {"recipe": "gcpo-cd", "embedder": "policy"})


def test_v1_never_updates_the_actor_past_the_recipe(monkeypatch):
    rows, _ = golden_rows("grpo")
    _, metrics, trainer, meta = v1_step(monkeypatch, rows, {"recipe": "grpo"})
    later = copy.copy(meta)
    later.keys = ["another_0_0", *meta.keys]  # a second sample within the step, which keeps its metrics
    with pytest.raises(RuntimeError, match=r"enabled, but Trainer\._compute_advantage went past it"):
        trainer._update_actor(later, metrics)
    del trainer._gcpo_steered
    with pytest.raises(RuntimeError, match="enabled, but"):
        trainer._update_actor(meta, {})


# The legacy trainer


def legacy(monkeypatch, name, **gcpo):
    groups = GOLDEN[name]
    ids = [torch.tensor(TOKENIZER(t, add_special_tokens=False)["input_ids"]) for t in groups["texts"]]
    responses = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=TOKENIZER.pad_token_id)
    lengths = torch.tensor([len(i) for i in ids])
    mask = (torch.arange(responses.shape[1]) < lengths.unsqueeze(1)).long()
    scores = torch.zeros(responses.shape)
    scores[torch.arange(len(ids)), lengths - 1] = torch.tensor(groups["rewards"]).flatten()
    order = torch.randperm(len(ids))
    tensors = {
        "responses": responses,
        "attention_mask": torch.cat([torch.ones(len(ids), 3, dtype=torch.long), mask], dim=1),
        "response_mask": mask,
        "token_level_scores": scores,
        "token_level_rewards": scores,
    }
    if "log_probs" in groups:
        tensors["old_log_probs"] = torch.zeros(responses.shape)
        tensors["old_log_probs"][torch.arange(len(ids)), lengths - 1] = torch.tensor(groups["log_probs"]).flatten()
    G = len(groups["rewards"][0])
    data = DataProto.from_dict(
        tensors={k: v[order] for k, v in tensors.items()},
        non_tensors={"uid": np.array([f"u{i // G}" for i in order.tolist()], dtype=object)},
    )
    config = algorithm(**gcpo)
    trainer = SimpleNamespace(config=OmegaConf.create({"algorithm": config}), tokenizer=TOKENIZER)
    monkeypatch.setitem(plugin._now, "legacy", trainer)
    return data, config, torch.tensor(groups["advantages"]).flatten()[order].unsqueeze(1) * mask[order]


@pytest.mark.parametrize("name", [name for name in GOLDEN if "scores" not in GOLDEN[name]])
def test_the_legacy_function_gives_the_advantages_that_trl_gave(monkeypatch, name):
    data, config, expected = legacy(monkeypatch, name, recipe=name)
    found = ray_trainer.compute_advantage(data, core_algos.AdvantageEstimator.GRPO, config=config)
    torch.testing.assert_close(found.batch["advantages"], expected, **close)
    assert found.meta_info["gcpo"]["gcpo/weight/mean"] == pytest.approx(1.0)


def test_a_trainer_nobody_knows_is_an_error_and_no_flag_changes_nothing(monkeypatch):
    data, config, _ = legacy(monkeypatch, "grpo", enable=True)
    monkeypatch.setitem(plugin._now, "legacy", None)
    with pytest.raises(RuntimeError, match="by a trainer that is no RayPPOTrainer"):
        ray_trainer.compute_advantage(data, core_algos.AdvantageEstimator.GRPO, config=config)
    ours = ray_trainer.compute_advantage(data, core_algos.AdvantageEstimator.GRPO, config=algorithm())
    theirs = ray_trainer.compute_advantage.__wrapped__(data, core_algos.AdvantageEstimator.GRPO, config=algorithm())
    assert torch.equal(ours.batch["advantages"], theirs.batch["advantages"])


def test_trainers_that_leave_the_parents_init_out_are_steered(monkeypatch):
    data, config, expected = legacy(monkeypatch, "gcpo-bot", recipe="gcpo-bot")

    class OneStepOff(ray_trainer.RayPPOTrainer):
        def __init__(self, config, tokenizer):
            self.config, self.tokenizer = config, tokenizer

    OneStepOff(OmegaConf.create({"algorithm": config}), tokenizer=TOKENIZER)
    found = ray_trainer.compute_advantage(data, core_algos.AdvantageEstimator.GRPO, config=config)
    torch.testing.assert_close(found.batch["advantages"], expected, **close)


def test_the_legacy_trainer_never_updates_past_the_recipe_and_logs_it(monkeypatch):
    data, config, _ = legacy(monkeypatch, "gcpo-bot", recipe="gcpo-bot")

    class Legacy(ray_trainer.RayPPOTrainer):
        def __init__(self):
            self.config, self.tokenizer = OmegaConf.create({"algorithm": config}), TOKENIZER

    trainer = Legacy()
    with pytest.raises(RuntimeError, match="enabled, but Legacy computed its advantages elsewhere"):
        trainer._update_actor(data)
    data = ray_trainer.compute_advantage(data, core_algos.AdvantageEstimator.GRPO, config=config)
    wrapper = ray_trainer.RayPPOTrainer._update_actor
    output = SimpleNamespace(meta_info={"metrics": {"actor/loss": [0.1]}})
    inner = next(cell for cell in wrapper.__closure__ if cell.cell_contents is wrapper.__wrapped__)
    monkeypatch.setattr(inner, "cell_contents", lambda self, batch: output)
    trainer._update_actor(data)
    assert output.meta_info["metrics"]["gcpo/weight/mean"] == pytest.approx(1.0)
    assert "gcpo" not in data.meta_info


# The engine's forward pass


@pytest.mark.parametrize("packed", [False, True])
def test_the_engine_gives_what_a_pass_of_our_own_would(packed):
    from gcpo.semantics.policy import Measure, backbone_of
    from tests import tiny

    torch.manual_seed(0)
    model = tiny.model()
    prompts = [torch.randint(5, 90, (n,)) for n in (3, 5, 4)]
    said = ["two\nlines", "x", "a longer one\nof three\nlines here"]
    ids = [torch.tensor(TOKENIZER(t, add_special_tokens=False)["input_ids"]) for t in said]
    spoken = [torch.ones(len(i), dtype=torch.long) for i in ids]
    spoken[0][2:4] = 0
    wanted = ["embeddings", "points", "scores"]

    def nested(rows):
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    both = [torch.cat(pair) for pair in zip(prompts, ids, strict=True)]
    batch = tu.get_tensordict(
        {
            "input_ids": nested(both),
            "position_ids": nested([torch.arange(len(row)) for row in both]),
            "prompts": nested(prompts),
            "responses": nested(ids),
            "loss_mask": nested(spoken),
        },
        {
            "use_remove_padding": packed,
            "temperature": 0.7,
            "gcpo_wanted": ",".join(wanted),
            "gcpo_max_points": 8,
            "gcpo_temperature": 0.7,
        },
    )
    engine = object.__new__(transformer_impl.FSDPEngineWithLMHead)
    vars(engine).update(
        module=model.eval(),
        pad_to_length=False,
        packed_seq_pad_to=None,
        use_ulysses_sp=False,
        model_config=SimpleNamespace(tokenizer=TOKENIZER),
        _autocast_dtype=torch.float32,
    )
    with torch.no_grad():
        _, output = engine.forward_step(batch, None, forward_only=True)
    found = {name: output["model_output"][f"gcpo_{name}"].unbind() for name in wanted}

    measure = Measure(TOKENIZER, wanted, 8, 0.7)
    for i, (prompt, response) in enumerate(zip(prompts, ids, strict=True)):
        ones = torch.ones(1, len(response), dtype=torch.bool)
        here = (prompt.unsqueeze(0), torch.ones(1, len(prompt), dtype=torch.long), response.unsqueeze(0), ones)
        own = measure(model, backbone_of(model), *here, spoken[i].unsqueeze(0).bool())
        for name in ("embeddings", "scores"):
            torch.testing.assert_close(found[name][i], own[name], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found["points"][i], own["points"][own["point_mask"]], atol=1e-5, rtol=1e-4)
    assert "log_probs" in output["model_output"]


def test_a_pass_nobody_asked_of_is_left_alone():
    assert transformer_impl.FSDPEngineWithLMHead.forward_step.__wrapped__
    batch = SimpleNamespace()
    called = []
    engine = object.__new__(transformer_impl.FSDPEngineWithLMHead)
    engine.prepare_model_inputs = lambda micro_batch: called.append(micro_batch) or (_ for _ in ()).throw(KeyError)
    batch = tu.get_tensordict({"x": torch.zeros(1, 1)}, {})
    with pytest.raises(KeyError):
        engine.forward_step(batch, None, forward_only=True)
    assert called
