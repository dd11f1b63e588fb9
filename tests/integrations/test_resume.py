"""A run resumed from any of its checkpoints is the run it would have been, and a torn checkpoint is told."""

import json
import shutil

import pytest
import torch
from transformers import PrinterCallback
from trl import GRPOTrainer

from gcpo import GCPOConfig, GCPOTrainer
from gcpo.integrations.resume import FILES, CheckpointError, ExactResumeMixin, flaw, last_checkpoint
from tests import tiny
from tests.integrations.launched import launch
from tests.integrations.test_trl import SETTINGS, parameters

TIMES = ("time", "runtime", "per_second", "_s", "embedding_share", "train_loss")  # the loss is of one call of train()


def build(directory, trainer=GCPOTrainer, model=None, rewards=tiny.spread, **settings):
    defaults = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1, "per_device_eval_batch_size": 4}
    built = trainer(
        model=model or tiny.model(),
        reward_funcs=rewards,
        args=GCPOConfig(output_dir=str(directory), **SETTINGS | defaults | settings),
        train_dataset=tiny.dataset(),
        eval_dataset=tiny.dataset(4),
        processing_class=tiny.tokenizer(),
    )
    built.remove_callback(PrinterCallback)
    return built


def history(trainer):
    """What was logged, but for times."""
    entries = [
        {k: v for k, v in sorted(entry.items()) if not k.endswith(TIMES)}
        for entry in trainer.state.log_history
        if "train_runtime" not in entry
    ]
    return json.dumps(entries, indent=0)


def extra(completions, log_extra=None, log_metric=None, **_):
    """Logs a column and a metric beside its rewards."""
    log_extra("length", [len(c) for c in completions])
    log_metric("longest", max(map(len, completions)))
    return tiny.spread(completions)


CASES = {
    "one batch a step": {"save_steps": 4},
    "two uses of a batch": {"num_iterations": 2},
    "a batch for two steps": {"gradient_accumulation_steps": 2, "steps_per_generation": 4},
    "a batch for a step and a half, twice": {
        "gradient_accumulation_steps": 2, "steps_per_generation": 3, "num_iterations": 2
    },
    "logs between checkpoints": {"logging_steps": 5, "steps_per_generation": 2},
    "three epochs": {"max_steps": 9, "save_steps": 4},
    "the order as it is": {"save_steps": 4, "shuffle_dataset": False},
    "a running correlation": {"gcpo_log_signals": ["score_dispersion"]},
    "text embeddings": {"gcpo_embedder": "hashed"},
    "evaluation and adaptive entropy": {
        "use_adaptive_entropy": True, "entropy_target": 9.0, "eval_strategy": "steps", "eval_steps": 3
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_a_run_resumed_from_a_checkpoint_is_the_run_it_would_have_been(tmp_path, settings):
    settings = {"save_steps": 3} | settings
    whole = build(tmp_path, **settings)
    whole.train()
    *checkpoints, _ = sorted(tmp_path.glob("checkpoint-*"))
    assert checkpoints
    for checkpoint in checkpoints:
        resumed = build(tmp_path, **settings | {"save_strategy": "no"})
        resumed.train(resume_from_checkpoint=str(checkpoint))
        assert history(resumed) == history(whole), checkpoint.name
        assert torch.equal(parameters(resumed), parameters(whole)), checkpoint.name


def test_the_table_of_completions_goes_on_too(tmp_path, capsys):
    settings = {"steps_per_generation": 2, "num_iterations": 2, "log_completions": True}
    whole = build(tmp_path, rewards=extra, **settings)
    whole.train()
    resumed = build(tmp_path, rewards=extra, **settings, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed._logs == whole._logs
    assert history(resumed) == history(whole)


def test_a_synced_reference_model_is_resumed(tmp_path):
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    settings = {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 2, "model": str(tmp_path / "model")}
    whole = build(tmp_path, **settings)
    whole.train()
    for step in (2, 3):
        resumed = build(tmp_path, **settings, save_strategy="no")
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert history(resumed) == history(whole)
        assert torch.equal(parameters(resumed), parameters(whole))


def test_any_trainer_of_trl_can_have_it(tmp_path):
    class Exact(ExactResumeMixin, GRPOTrainer):
        pass

    settings = {"trainer": Exact, "num_iterations": 2}
    whole = build(tmp_path, **settings)
    whole.train()
    resumed = build(tmp_path, **settings, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert torch.equal(parameters(resumed), parameters(whole))


def test_a_checkpoint_of_another_trainer_is_taken_with_a_warning(tmp_path, monkeypatch):
    from gcpo.integrations import resume

    said = []
    monkeypatch.setattr(resume.logger, "warning", said.append)
    build(tmp_path, trainer=GRPOTrainer, max_steps=2).train()
    build(tmp_path, max_steps=3, save_strategy="no").train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert any("not bit for bit" in sentence for sentence in said)


@pytest.mark.parametrize(
    "settings",
    [{"per_device_train_batch_size": 4}, {"steps_per_generation": 4}, {"num_iterations": 1}, {"num_generations": 2}],
    ids=str,
)
def test_with_batches_of_other_sizes_it_goes_on_with_a_new_one_and_says_so(tmp_path, monkeypatch, settings):
    from gcpo.integrations import resume

    said = []
    monkeypatch.setattr(resume.logger, "warning", said.append)
    uses = {"num_iterations": 2, "steps_per_generation": 2, "use_adaptive_entropy": True, "entropy_target": 9.0}
    first = build(tmp_path, **uses, max_steps=1)
    first.train()
    assert first._step % 4, "in the middle of a batch"
    resumed = build(tmp_path, **uses | settings, max_steps=3, save_strategy="no")
    began = []
    generate = resumed._generate_and_score_completions
    resumed._generate_and_score_completions = lambda inputs: began.append(resumed._step) or generate(inputs)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert began[0] == 0
    assert sum("for other batches" in sentence for sentence in said) == 1
    assert resumed.state.global_step == 3


def test_no_process_takes_a_part_that_another_lacks(tmp_path, monkeypatch):
    build(tmp_path, num_iterations=2, max_steps=1).train()
    resumed = build(tmp_path, num_iterations=2, max_steps=2, save_strategy="no")
    gather = resumed.accelerator.gather
    another = iter([torch.tensor([-1])])  # of a second process, which finds no file
    resumed.accelerator.gather = lambda mine: torch.cat([gather(mine), next(another, gather(mine)[:0])])
    resumed._load_rng_state(str(tmp_path / "checkpoint-1"))
    assert resumed._step == 0
    assert resumed._buffered_inputs is None


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints")
    build(directory, max_steps=2).train()
    return directory


@pytest.fixture
def torn(checkpoints, tmp_path):
    shutil.copytree(checkpoints, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_file_of_a_checkpoint_is_missed_and_measured(torn):
    newest = torn / "checkpoint-2"
    assert flaw(newest) is None
    names = [f.name for f in newest.iterdir()]
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "gcpo_state_0.pt", FILES} <= {*names}
    for name in names:
        content = (newest / name).read_bytes()
        (newest / name).write_bytes(content[: len(content) // 2])
        assert name in flaw(newest), name
        (newest / name).unlink()
        assert name in flaw(newest), name
        (newest / name).write_bytes(content)
    assert flaw(newest) is None


def test_the_one_before_a_torn_checkpoint_is_found_and_the_torn_one_named(torn):
    said = []
    (torn / "checkpoint-2" / "optimizer.pt").unlink()
    (torn / "checkpoint-10").mkdir()
    assert last_checkpoint(torn, said.append) == torn / "checkpoint-1"
    assert f"{FILES} is missing" in said[0]
    assert "checkpoint-10 is not whole" in said[0]
    assert "checkpoint-2 is not whole (optimizer.pt is missing)" in said[1]
    (torn / "checkpoint-1" / "trainer_state.json").write_text("{")
    assert last_checkpoint(torn, said.append) is None
    assert last_checkpoint(torn / "absent") is None


def test_nothing_in_our_part_of_a_checkpoint_needs_pickle(checkpoints):
    state = torch.load(checkpoints / "checkpoint-1" / "gcpo_state_0.pt", weights_only=True)
    assert state["step"] == 1


def test_a_checkpoint_that_cannot_be_written_is_named_and_those_before_stay(tmp_path):
    trainer = build(tmp_path, max_steps=3)
    (tmp_path / "checkpoint-2").touch()  # a file where the directory should be
    with pytest.raises(CheckpointError, match=r"checkpoint of step 2 could not be written to .*checkpoint-2"):
        trainer.train()
    (tmp_path / "checkpoint-2").unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-1"


def test_what_users_log_is_kept_whatever_its_type():
    import numpy as np

    from gcpo.integrations.resume import _plain

    kept = _plain({"a": np.float32(0.5), "b": [np.int64(3), None, True, "x"], "c": (float("nan"),), "d": {1}})
    assert kept["a"] == 0.5
    assert kept["b"] == [3, None, True, "x"]
    assert [type(v) for v in kept["b"]] == [int, type(None), bool, str]
    assert kept["d"] == "{1}"


RANKS = """
import os, sys, torch
from tests.integrations.launched import end
from tests.integrations.test_resume import build, history, parameters
settings = {"per_device_train_batch_size": 6, "num_iterations": 2, "max_steps": 4}  # groups of 4 straddle ranks
whole = build(sys.argv[1], **settings)
whole.train()
resumed = build(sys.argv[1], **settings, save_strategy="no")
resumed.train(resume_from_checkpoint=sys.argv[1] + "/checkpoint-3")
assert torch.equal(parameters(whole), parameters(resumed))
assert history(whole) == history(resumed)
end()
"""


@pytest.mark.slow
def test_two_processes_resume_each_its_own_part(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    launch(tmp_path / "ranks.py", tmp_path / "out")
    checkpoint = tmp_path / "out" / "checkpoint-3"
    assert {"gcpo_state_0.pt", "gcpo_state_1.pt", "rng_state_1.pth"} <= {f.name for f in checkpoint.iterdir()}
    assert flaw(checkpoint) is None
