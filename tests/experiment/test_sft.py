"""``gcpo sft``: the loss is on gold solutions and their end, and a policy learns them."""

import json
import shutil
from unittest.mock import Mock

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcpo.experiment.settings import SFTSettings, TrainSettings, UsageError
from gcpo.experiment.sft import build_config, rows, sft
from gcpo.experiment.subject import load_policy
from gcpo.integrations.trl_sft import SFTTrainer
from gcpo.tasks import Example, get_task
from tests import tiny

SMALL = {"eval_prompts": 8, "trainer": {"max_steps": 4, "per_device_train_batch_size": 8, "save_steps": 2}}
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_a_run_leaves_what_train_leaves(tmp_path):
    summary = sft(SFTSettings(task="chain", **SMALL), tmp_path / "run")
    assert summary["status"] == "finished"
    assert summary["steps"] == 4
    assert summary["after"]["n"] == 8
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "report.html").is_file()
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    with pytest.raises(UsageError, match="holds a finished run"):
        sft(SFTSettings(task="chain", **SMALL), tmp_path / "run")


@pytest.mark.parametrize("lora", [False, True])
def test_an_unfinished_run_goes_on_from_its_checkpoint(tmp_path, lora):
    if lora:
        pytest.importorskip("peft")
    settings, output = SFTSettings(task="chain", lora=lora, **SMALL), tmp_path / "run"
    whole = sft(settings, output)
    metrics = (output / "metrics.jsonl").read_text().splitlines()
    (output / "summary.json").write_text(json.dumps(whole | {"status": "running", "after": None}))
    shutil.rmtree(output / "checkpoints" / "checkpoint-4")
    again = sft(settings, output)
    assert again["status"] == "finished"
    assert again["after"] == whole["after"]
    resumed = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in resumed] == [1, 2, 3, 4]
    assert resumed[3]["loss"] == pytest.approx(json.loads(metrics[3])["loss"], rel=1e-4)


@pytest.mark.parametrize("chat", [False, True])
def test_the_loss_is_on_the_solution_and_its_end(tmp_path, chat):
    tokens = tiny.tokenizer()
    if chat:
        tokens.chat_template = TEMPLATE
    data = rows([Example("1+1=", "2", "2", before=(("system", "Add."),))] * 8, chat)
    from datasets import Dataset

    config = build_config(SFTSettings(trainer={"max_steps": 1}), tmp_path)
    trainer = SFTTrainer(tiny.model(), config, train_dataset=Dataset.from_list(data), processing_class=tokens)
    batch = next(iter(trainer.get_train_dataloader()))
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    learned = tokens.decode(ids[labels != -100])
    assert learned.rstrip() == (f"2{tokens.eos_token}" if chat else f" 2{tokens.eos_token}")
    whole = tokens.decode(ids)
    assert whole.startswith("system: Add.user: 1+1=assistant: 2" if chat else "Add.\n\n1+1= 2")


def test_a_policy_learns_gold_solutions(tmp_path):
    """One problem by heart: greedy decoding gives its solution."""
    (example,) = get_task("chain").examples("train", 1, seed=0)
    data = tmp_path / "d.jsonl"
    solved = [{"prompt": example.prompt + " " * i, "answer": example.solution} for i in range(20)]
    data.write_text("\n".join(json.dumps(row) for row in solved))
    trainer = {"max_steps": 40, "per_device_train_batch_size": 16, "learning_rate": 2e-3, "warmup_steps": 0}
    summary = sft(SFTSettings(data=str(data), eval_prompts=2, trainer=trainer), tmp_path / "run")
    assert summary["after"]["accuracy"] == 1.0


def test_a_run_that_ended_after_its_last_checkpoint_trains_no_step_more(tmp_path, monkeypatch):
    settings = SFTSettings(task="chain", **SMALL)
    with monkeypatch.context() as patched:
        patched.setattr("gcpo.experiment.sft.merged", Mock(side_effect=RuntimeError("the power went")))
        with pytest.raises(RuntimeError, match="the power went"):
            sft(settings, tmp_path / "cut")
    found, whole = sft(settings, tmp_path / "cut"), sft(settings, tmp_path / "whole")
    assert found["steps"] == whole["steps"]
    assert found["after"] == whole["after"]
    weights = [(tmp_path / run / "model/model.safetensors").read_bytes() for run in ("cut", "whole")]
    assert weights[0] == weights[1]


def test_lora_trains_little_and_leaves_a_whole_model(tmp_path):
    peft = pytest.importorskip("peft")
    settings = SFTSettings(task="chain", lora=True, lora_rank=2, **SMALL)
    sft(settings, tmp_path / "run")
    assert peft.PeftConfig.from_pretrained(tmp_path / "run" / "adapter").r == 2
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    start, _ = load_policy("starter", torch.device("cpu"))
    before, after = start.state_dict(), whole.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("proj" in name for name in changed), "the tied head and embeddings stay"


def test_lora_in_reinforcement_learning(tmp_path):
    pytest.importorskip("peft")
    from gcpo.experiment.train import train

    trainer = {"max_steps": 2, "per_device_train_batch_size": 16, "num_generations": 4}
    summary = train(TrainSettings(lora=True, eval_prompts=4, eval_samples=1, trainer=trainer), tmp_path / "run")
    assert summary["status"] == "finished"
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")


def test_lora_without_peft_or_linear_layers_is_refused(monkeypatch):
    from gcpo.experiment.adapters import with_lora

    pytest.importorskip("peft")
    monkeypatch.setattr("peft.get_peft_model", lambda *_: (_ for _ in ()).throw(ValueError("no modules")))
    with pytest.raises(UsageError, match=r"lora finds nothing to adapt in a LlamaForCausalLM \(no modules\)"):
        with_lora(tiny.model(), SFTSettings(lora=True))
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UsageError, match="lora needs peft, which is not installed"):
        with_lora(tiny.model(), SFTSettings(lora=True))


def test_a_missing_padding_token_is_the_end_token_and_without_both_is_refused(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    tokens = tiny.tokenizer()
    tokens.pad_token = None
    tokens.save_pretrained(tmp_path)
    _, tokenizer = load_policy(str(tmp_path), torch.device("cpu"))
    assert tokenizer.pad_token == tokenizer.eos_token
    tokens.eos_token = None
    tokens.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token is None
    with pytest.raises(UsageError, match="must have an end or a padding token, found neither"):
        load_policy(str(tmp_path), torch.device("cpu"))


def test_wrong_fields_are_named(tmp_path):
    with pytest.raises(UsageError, match="there is no setting 'max_step'; did you mean 'max_steps'"):
        sft(SFTSettings(trainer={"max_step": 3}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
