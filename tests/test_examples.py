"""The examples run as they stand, with a small stand-in for the model they would download."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parent.parent / "examples"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def stand_in(tmp_path):
    """A Qwen2 of random weights: tied head, chat template, no padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(letters, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", chat_template=CHATML)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    directory = tmp_path / "stand-in"
    Qwen2ForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


FORMATS = {
    "gsm8k": lambda i: {"question": f"What is {i}+{i}?", "answer": f"<<{i}+{i}={2 * i}>>\n#### {2 * i}"},
    "math": lambda i: {"problem": f"What is ${i}+{i}$?", "solution": f"It is $\\boxed{{{2 * i}}}$."},
}


@pytest.fixture(params=FORMATS)
def rows(request, tmp_path):
    """Which problems, and files in their format."""
    for name, numbers in (("train", range(8, 28)), ("test", range(8))):
        lines = [json.dumps(FORMATS[request.param](i)) for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return ["--on", request.param, f"--data={tmp_path / 'train.jsonl'}", f"--test-data={tmp_path / 'test.jsonl'}"]


def run(name, *words):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.argv = [f"{name}.py", *map(str, words)]
    return module.main()


def test_qwen_trains_and_is_evaluated_against_what_it_was(stand_in, rows, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr(sys, "argv", [])
    output = tmp_path / "out"
    reward = "reward=numeric,0.1*length:4"  # random weights are never right
    short = ["max_steps=2", "gradient_accumulation_steps=2", "eval_prompts=2", reward]
    words = ["--model", stand_in, *rows, "--length=8", "--samples=2", "--output", output, *short]
    assert run("qwen_math", *words) == 0
    config = yaml.safe_load((output / "run" / "config.yaml").read_text())
    assert config["lora"]
    assert config["trainer"]["gradient_checkpointing"]
    assert config["trainer"]["bf16"]
    assert (output / "run" / "adapter" / "adapter_config.json").is_file()
    summary = json.loads((output / "eval" / "summary.json").read_text())
    assert summary["n"] == 8
    assert summary["comparison"]["greedy"]["test"] == "McNemar, exact"
    assert (output / "eval" / "report.html").is_file()
    written = (output / "eval" / "responses.jsonl").stat().st_mtime_ns
    assert run("qwen_math", *words) == 0, "what is finished is not done again"
    assert (output / "eval" / "responses.jsonl").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("on", "asked"),
    [("gsm8k", ("openai/gsm8k", "main")), ("math", ("DigitalLearningGmbH/MATH-lighteval", None))],
)
def test_qwen_gets_as_far_as_the_download(on, asked, tmp_path, monkeypatch, capsys):
    seen = []

    def unreachable(place, name, revision):
        seen.append((place, name))
        raise ConnectionError("no network")

    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr("datasets.load_dataset_builder", unreachable)
    assert run("qwen_math", "--on", on, "--output", tmp_path / on) == 2
    assert seen == [asked]
    assert "which cannot be loaded" in capsys.readouterr().err
