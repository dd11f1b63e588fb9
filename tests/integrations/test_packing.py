"""Leaving out rows and padding changes nothing of the update, in any of TRL's losses."""

from itertools import product

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from trl import GRPOConfig, GRPOTrainer

from gcpo.integrations import packing
from gcpo.semantics.policy import ignores_padding
from tests import tiny
from tests.integrations.test_trl import build, logged, ours, parameters, trained

LOSSES = sorted(packing.LOSS_TYPES)
LEVELS = ["token", "sequence"]


def half_dead(completions, prompts, **_):
    """Groups of prompts with an even first number get equal rewards."""
    return [0.5 if int(p[0]) % 2 == 0 else r for p, r in zip(prompts, tiny.spread(completions), strict=True)]


def gpt2():
    """Works in double precision throughout, where Llama's norms do not."""
    torch.manual_seed(0)
    tokens = tiny.tokenizer()
    ids = {
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "eos_token_id": tokens.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokens.pad_token_id,
    }
    config = GPT2Config(vocab_size=len(tokens), n_positions=64, n_embd=32, n_layer=2, n_head=4, **ids)
    return GPT2LMHeadModel(config)


def batch(B=6, P=5, T=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    prompt = torch.randint(1, 4, (B,), generator=g)
    length = torch.randint(1, 5, (B,), generator=g)
    mask = (torch.arange(T) < length[:, None]).long()
    return {
        "prompt_ids": torch.randint(3, 50, (B, P), generator=g),
        "prompt_mask": (torch.arange(P) >= P - prompt[:, None]).long(),
        "completion_ids": torch.randint(3, 50, (B, T), generator=g),
        "completion_mask": mask,
        "advantages": torch.tensor([1.0, 0.0, -2.0, 0.0, 0.0, 0.5])[:B].double(),
        "old_per_token_logps": torch.randn(B, T, generator=g, dtype=torch.float64) - 4,
        "num_items_in_batch": mask.sum(),
        "texts": [str(i) for i in range(B)],
    }


@pytest.mark.parametrize(("loss", "level"), [pair for pair in product(LOSSES, LEVELS) if pair != ("luspo", "token")])
def test_gradients_are_equal_in_double_precision(tmp_path, loss, level):
    settings = {"loss_type": loss, "importance_sampling_level": level, "recipe": "grpo"}
    trainer = ours(tmp_path, model=gpt2().double(), **settings)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    whole = batch()
    found = {}
    for name, extra in (("whole", {}), ("packed", {"gcpo_row": torch.arange(6)})):
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, whole | extra).backward()
        found[name] = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert found["whole"].abs().max() > 1e-4
    assert trainer._metrics["train"]["gcpo/rows_left_out"] == [0.5]
    tolerance = 1e-12 if loss != "bnpo" else 1e-7 * found["whole"].abs().max().item()
    torch.testing.assert_close(found["packed"], found["whole"], atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        *({"loss_type": loss} for loss in LOSSES if loss != "luspo"),
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
        {"gradient_accumulation_steps": 4, "steps_per_generation": 4, "per_device_train_batch_size": 4},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "per_device_train_batch_size": 4},
        {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "per_device_train_batch_size": 4},
        {"num_iterations": 2},
        {"importance_sampling_level": "sequence"},
    ],
    ids=str,
)
def test_twenty_steps_end_with_the_parameters_of_the_whole_batch(tmp_path, settings):
    # SGD: Adam makes a full step of what differs in the last bit only.
    settings = {"max_steps": 20, "recipe": "grpo", "optim": "sgd", "learning_rate": 0.1, **settings}
    whole = trained(ours(tmp_path / "whole", half_dead, gcpo_pack=False, **settings))
    packed = trained(ours(tmp_path / "packed", half_dead, **settings))
    assert sum(logged(packed, "gcpo/rows_left_out")) > 1
    assert not logged(whole, "gcpo/rows_left_out")
    assert (parameters(whole) - parameters(packed)).abs().max() < 1e-6
    assert not torch.equal(parameters(whole), tiny_parameters())
    assert logged(packed, "reward") == logged(whole, "reward")


def tiny_parameters():
    return torch.cat([p.detach().flatten() for p in tiny.model().parameters()])


def test_twenty_steps_of_trl_itself(tmp_path):
    settings = {"max_steps": 20, "optim": "sgd", "learning_rate": 0.1}
    theirs = trained(build(GRPOTrainer, GRPOConfig, tmp_path / "trl", half_dead, **settings))
    mine = trained(ours(tmp_path / "gcpo", half_dead, recipe="grpo", **settings))
    assert (parameters(theirs) - parameters(mine)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"top_entropy_quantile": 0.5}, "top_entropy_quantile"),
        ({"entropy_coef": 0.1}, "the entropy bonus"),
        ({"loss_type": "luspo"}, "loss_type='luspo' by token"),
    ],
    ids=lambda x: str(x),
)
def test_it_is_off_where_it_would_be_wrong_and_says_why(tmp_path, caplog, settings, reason):
    trainer = trained(ours(tmp_path, half_dead, recipe="grpo", **settings))
    assert [r.message for r in caplog.records if r.message.startswith(f"gcpo_pack is off: {reason}")]
    assert not logged(trainer, "gcpo/rows_left_out")


def test_a_kl_penalty_switches_it_off(tmp_path, caplog):
    trainer = ours(tmp_path)
    trainer.beta = 0.1
    assert not trainer._packs()
    assert [r.message for r in caplog.records if r.message.startswith("gcpo_pack is off: a KL penalty")]


def test_a_loss_of_a_subclass_is_left_alone(tmp_path, caplog):
    from gcpo import GCPOConfig, GCPOMixin

    class Own(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            assert len(inputs["advantages"]) == 8
            return super()._compute_loss(model, inputs)

    class Mixed(GCPOMixin, Own):
        pass

    trained(build(Mixed, GCPOConfig, tmp_path, half_dead, recipe="grpo"))
    assert any("the trainer has a loss of its own" in r.message for r in caplog.records)


def test_a_batch_without_active_rows_moves_nothing_and_logs_no_entropy(tmp_path):
    trainer = trained(ours(tmp_path, lambda completions, **_: [0.3] * len(completions), recipe="grpo"))
    assert torch.equal(parameters(trainer), tiny_parameters())
    assert logged(trainer, "gcpo/rows_left_out") == [1.0] * 3
    assert not logged(trainer, "entropy")
    assert logged(trainer, "loss") == [0.0] * 3


def test_trim_keeps_every_token_and_the_alignment():
    whole = batch() | {"token_type_ids": torch.arange(12).expand(6, 12)}
    cut = packing.trim(whole)
    p, t = cut["prompt_ids"].size(1), cut["completion_ids"].size(1)
    assert p == int(whole["prompt_mask"].sum(1).max()) < 5
    assert t == int(whole["completion_mask"].sum(1).max()) < 7
    assert cut["prompt_mask"].sum() == whole["prompt_mask"].sum()
    assert cut["completion_mask"].sum() == whole["completion_mask"].sum()
    assert cut["old_per_token_logps"].shape == (6, t)
    assert cut["token_type_ids"][0].tolist() == list(range(5 - p, 5 + t))
    assert packing.trim(whole, left=False)["prompt_ids"].shape == (6, 5)


def test_a_window_deals_out_the_same_rows_long_before_short_before_dead():
    parts = [batch(seed=s) for s in range(3)]
    dealt = packing.window(parts)
    length = torch.cat([(b["prompt_mask"].sum(1) + b["completion_mask"].sum(1)) * packing.active(b) for b in dealt])
    assert (length.diff() <= 0).all()
    assert [len(b["texts"]) for b in dealt] == [6, 6, 6]

    def rows(batches):
        return sorted(tuple(x) for b in batches for x in b["completion_ids"].tolist())

    assert rows(dealt) == rows(parts)
    assert all(b["num_items_in_batch"] == parts[0]["num_items_in_batch"] for b in dealt)
    for b in dealt:  # in unison
        for i, ids in enumerate(b["completion_ids"]):
            home, j = next((p, j) for p in parts for j in range(6) if torch.equal(p["completion_ids"][j], ids))
            assert torch.equal(b["prompt_ids"][i], home["prompt_ids"][j])
            assert b["texts"][i] == home["texts"][j]


def test_learned_positions_are_recognised():
    assert ignores_padding(tiny.model())
    assert not ignores_padding(gpt2())


@pytest.mark.parametrize(("model", "trims"), [(tiny.model, True), (gpt2, False)])
def test_bf16_autocast_is_not_taken_for_positions(tmp_path, caplog, model, trims):
    trainer = ours(tmp_path, model=model(), bf16=True)
    wrapped = trainer.accelerator.prepare_model(trainer.model)
    assert hasattr(wrapped, "_original_forward"), "accelerate's autocast"
    assert trainer._may_trim_left(wrapped) == trims
    assert any("leaves padding on the left" in r.message for r in caplog.records) != trims


def test_one_process_with_images_leaves_packing_out_on_all(tmp_path, monkeypatch):
    trainer, active = ours(tmp_path), torch.tensor([True, False, True])
    assert trainer._rows_of_all(active, images=False) == 2
    assert trainer._rows_of_all(active, images=True) is None
    for of_another, rows in (([3, 0], 3), ([0, 1], None)):
        another = torch.tensor([of_another])
        monkeypatch.setattr(trainer.accelerator, "gather", lambda mine, another=another: torch.cat([mine, another]))
        assert trainer._rows_of_all(active, images=False) == rows
