"""A model that cannot be trained is named in a sentence before any work starts, and nothing in it is run."""

import json
import pickle
import shutil

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from gcpo.cli import main
from gcpo.experiment.resolve import resolve
from gcpo.experiment.settings import TrainSettings, UsageError
from gcpo.experiment.subject import load_policy, poses_chat
from gcpo.experiment.train import build_config
from gcpo.policies import POLICIES
from gcpo.tasks import get_task


@pytest.fixture
def model(tmp_path):
    shutil.copytree(POLICIES["starter"], tmp_path / "model")
    return tmp_path / "model"


def refused(model, *words):
    """The one line that says why a model is not taken."""
    with pytest.raises(UsageError) as caught:
        load_policy(str(model), torch.device("cpu"))
    said = str(caught.value)
    assert said.startswith(f"the model {str(model)!r} ")
    assert "\n" not in said
    for word in words:
        assert word in said
    return said


def configure(model, **changes):
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_without_weights(model):
    (model / "model.safetensors").unlink()
    refused(model, "no file named model.safetensors")


def test_without_a_tokenizer(model):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    refused(model, "tokenizer")


def test_weights_that_would_be_made_up(model):
    weights = load_file(model / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    refused(model, "found 1 missing, the first model.norm.weight: give a whole causal language model")


def test_weights_of_another_size(model):
    configure(model, intermediate_size=32)
    refused(model, "mlp.", "in the size [")


def test_another_architecture(model):
    configure(model, model_type="gpt2", n_layer=1, n_head=1, n_embd=8)
    refused(model, "missing, the first ")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.99), tail=st.binary(max_size=8))
@example(share=0.0, tail=b"")
def test_a_file_that_breaks_off(model, name, share, tail):
    whole = (POLICIES["starter"] / name).read_bytes()
    (model / name).write_bytes(whole[: int(share * len(whole))] + tail)
    refused(model, "cannot be loaded: ")


def test_a_token_without_an_embedding(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(model)
    refused(model, "must have an embedding for every token, found 100 for tokens up to number 100: use the tokenizer")


def test_a_pickle_that_runs_code_is_not_run(model, tmp_path):
    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (model / "model.safetensors").unlink()
    torch.save({"weight": Touch()}, model / "pytorch_model.bin")
    refused(model, "Weights only load failed")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Touch()))
    refused(model, "cannot be loaded")
    assert not (tmp_path / "ran").exists()


def test_code_in_a_model_is_not_run_and_nobody_is_asked(model, tmp_path, monkeypatch):
    def asked(*_):
        raise AssertionError("the terminal was asked")

    monkeypatch.setattr("builtins.input", asked)
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    configure(model, model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    refused(model, "contains custom code")
    assert not (tmp_path / "ran").exists()


def test_without_a_chat_template(model):
    _, tokenizer = load_policy(str(model), torch.device("cpu"))
    with pytest.raises(UsageError, match="chat=true needs a chat template, but the model 'starter' has none"):
        poses_chat(TrainSettings(chat=True), tokenizer)


def test_the_command_line_says_it_and_leaves_nothing(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (model / "model.safetensors").write_bytes(b"")
    for command in ("train", "sft", "eval", "probe"):
        assert main([command, "--model", str(model)]) == 2
        assert f"gcpo {command}: the model {str(model)!r} cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_bad_second_model_is_refused_before_the_first_is_asked(model, name, tmp_path, capsys):
    (model / name).write_text("{")
    output = tmp_path / "run"
    assert main(["eval", "--against", str(model), "--output", str(output)]) == 2
    assert f"gcpo eval: the model {str(model)!r} cannot be loaded" in capsys.readouterr().err
    assert not output.exists()


def test_the_model_without_a_chat_template_is_named(model, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "chats")
    for file in ("config.json", "model.safetensors"):
        shutil.copy(model / file, tmp_path / "chats")
    words = ["eval", "--model", str(tmp_path / "chats"), "--against", "starter", "chat=true"]
    assert main([*words, "--output", str(tmp_path / "run")]) == 2
    assert "but the model 'starter' has none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def trainer_of(tmp_path, **given):
    return build_config(resolve(TrainSettings, given), get_task("chain"), tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_generations": 1}, "num_generations must be at least 2, found 1"),
        ({"num_generations": 0}, "num_generations must be at least 2, found 0"),
        ({"num_generations": 512}, r"generation_batch_size \(128\) must be divisible by num_generations \(512\)"),
        ({"num_generations": 7}, r"generation_batch_size \(128\) must be divisible by num_generations \(7\)"),
        ({"num_generations_eval": 3, "eval_strategy": "steps", "eval_steps": 1}, "divisible .* evaluation"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1, found 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1, found 0"),
        ({"max_completion_length": 0}, "max_completion_length must be at least 1, found 0"),
        ({"temperature": 0}, "temperature must be above 0, found 0"),
        ({"beta": -1}, "beta must be at least 0, found -1"),
        ({"fp16": True, "use_cpu": True}, "fp16=true needs a GPU, found none: leave it out"),
        ({"use_vllm": True}, "use_vllm=true needs vLLM, which is not installed"),
    ],
    ids=str,
)
def test_group_sizes_and_devices(tmp_path, monkeypatch, given, message):
    monkeypatch.setattr("gcpo.experiment.train.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=message):
        trainer_of(tmp_path, **given)


SIZES = ("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(SIZES), st.integers(-2, 40)))
def test_any_sizes_make_whole_groups_or_a_sentence(tmp_path, given):
    try:
        config = trainer_of(tmp_path, **given)
    except UsageError as error:
        said = str(error)
        assert "Error:" not in said  # the name of a host's own exception
        return
    assert config.num_generations >= 2
    assert config.generation_batch_size % config.num_generations == 0
