"""``gcpo eval``: counts agree with the responses on disk, and a killed run goes on to the same responses."""

import json
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch

from gcpo.cli import main
from gcpo.experiment import generation
from gcpo.experiment.assess import assess, comparison, figures, table
from gcpo.experiment.generation import TransformersGenerator
from gcpo.experiment.resolve import resolve
from gcpo.experiment.settings import EvalSettings, UsageError
from gcpo.policies.sampling import respond, sample
from gcpo.tasks import get_task
from tests import tiny

SMALL = {"prompts": 12, "samples": 4, "batch_size": 16}


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output = tmp_path_factory.mktemp("eval") / "run"
    return output, assess(EvalSettings(task="countdown", **SMALL), output)


def test_the_figures_are_those_of_the_responses_on_disk(run):
    output, summary = run
    records, task = lines(output / "responses.jsonl"), get_task("countdown")
    examples = task.examples("test", 12, seed=0)
    assert sorted(r["i"] for r in records) == list(range(12))
    for record in records:
        example = examples[record["i"]]
        assert record["prompt"] == example.prompt
        assert record["scores"] == [task.grade(response, example) for response in record["responses"]]
        assert record["greedy_score"] == task.grade(record["greedy"], example)
    rates = np.array([np.mean(r["scores"]) for r in records])
    assert summary["pass@1"]["value"] == pytest.approx(rates.mean())
    assert summary["pass@k"]["4"]["value"] == pytest.approx((rates > 0).mean())
    assert set(summary["pass@k"]) == {"1", "2", "4"}
    assert summary["greedy"]["value"] == pytest.approx(np.mean([r["greedy_score"] for r in records]))
    assert json.loads((output / "summary.json").read_text()) == summary


@pytest.mark.parametrize("cold", [{"top_p": 1e-6}, {"temperature": 1e-4}], ids=str)
def test_a_cold_sample_is_the_greedy_response(tmp_path, cold):
    assess(EvalSettings(task="chain", prompts=4, samples=2, **cold), tmp_path / "run")
    records = lines(tmp_path / "run" / "responses.jsonl")
    assert [r["responses"] for r in records] == [[r["greedy"]] * 2 for r in records]


def test_without_greedy_responses_the_first_wrong_sample_is_read(tmp_path):
    summary = assess(EvalSettings(task="countdown", prompts=8, samples=3, greedy=False), tmp_path / "run")
    assert "greedy" not in summary
    records = sorted(lines(tmp_path / "run" / "responses.jsonl"), key=lambda r: r["i"])
    wrong = [
        (r["prompt"], next(text for text, score in zip(r["responses"], r["scores"], strict=True) if score < 1))
        for r in records
        if min(r["scores"]) < 1
    ]
    assert wrong
    assert [(f["prompt"], f["response"]) for f in lines(tmp_path / "run" / "failures.jsonl")] == wrong


def test_failures_are_kept_for_reading(run):
    output, summary = run
    failures = lines(output / "failures.jsonl")
    records = sorted(lines(output / "responses.jsonl"), key=lambda r: r["i"])
    assert [(f["prompt"], f["response"]) for f in failures] == [
        (r["prompt"], r["greedy"]) for r in records if r["greedy_score"] < 1
    ]
    assert len(failures) == round(12 * (1 - summary["greedy"]["value"]))
    assert all(f["score"] == 0 and f["answers"] and f["response"] is not None for f in failures)


def test_greedy_takes_the_likeliest_token():
    model, tokens = tiny.model(), tiny.tokenizer()
    prompts = ["1+1=", "12+34="]
    texts = [sample(model, tokens, prompts, 5, temperature=0.0).texts for _ in range(2)]
    assert texts[0] == texts[1]
    with torch.no_grad():
        ids = tokens("1+1=", return_tensors="pt").input_ids
        first = model(ids).logits[0, -1].argmax()
    assert texts[0][0].startswith(tokens.decode([first], skip_special_tokens=True))
    torch.manual_seed(0)
    hot = respond(model, tokens, prompts * 8, 5)
    torch.manual_seed(0)
    assert sample(model, tokens, prompts * 8, 5, temperature=1e-4).texts != hot


def test_a_killed_run_goes_on_to_the_same_responses(run, tmp_path):
    output = tmp_path / "run"
    words = ["--task", "countdown", "prompts=12", "samples=4", "batch_size=16", "--output", str(output)]
    command = [sys.executable, "-m", "gcpo", "eval", *words, "--json"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    file, deadline = output / "responses.jsonl", time.monotonic() + 600
    while not (file.is_file() and file.read_text().count("\n") >= 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = file.read_text()
    whole = kept[: kept.rindex("\n") + 1]
    file.write_text(whole + '{"i": 3, "prompt": "tor')  # what a kill in mid-line leaves
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert file.read_text().startswith(whole)
    by_place = {r["i"]: r for r in lines(file)}
    assert by_place == {r["i"]: r for r in lines(run[0] / "responses.jsonl")}
    assert json.loads(done.stdout)["pass@1"] == run[1]["pass@1"]
    assert main(["eval", *words]) == 2, "a finished run is not run again"


def test_another_evaluation_does_not_go_on_with_these_responses(tmp_path):
    output = tmp_path / "run"
    (output).mkdir()
    assess(EvalSettings(task="chain", prompts=2, samples=0), output)
    summary = json.loads((output / "summary.json").read_text())
    (output / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    with pytest.raises(UsageError, match="unfinished run with another prompts"):
        assess(EvalSettings(task="chain", prompts=3, samples=0), output)


def test_responses_to_other_data_of_the_same_name_are_not_gone_on_with(tmp_path):
    data, output = tmp_path / "d.jsonl", tmp_path / "run"
    for first in (1, 100):
        rows = [{"prompt": f"{i}+{i}=?\n", "answer": str(2 * i)} for i in range(first, first + 5)]
        data.write_text("\n".join(map(json.dumps, rows)))
        settings = EvalSettings(data=str(data), split="train", samples=0, max_new_tokens=4)
        if first == 1:
            assess(settings, output)
            (output / "summary.json").write_text('{"status": "interrupted"}')
    with pytest.raises(UsageError, match="has responses to other prompts or answers than the data has now"):
        assess(settings, output)


def test_ctrl_c_keeps_what_was_done(tmp_path, monkeypatch):
    class Stops(TransformersGenerator):
        calls = 0

        def __call__(self, *given):
            Stops.calls += 1
            if Stops.calls > 2:
                raise KeyboardInterrupt
            return super().__call__(*given)

    monkeypatch.setattr(generation, "TransformersGenerator", Stops)
    words = ["eval", "--task", "chain", "prompts=8", "samples=4", "batch_size=8", "--output", str(tmp_path / "run")]
    assert main(words) == 130
    assert len(lines(tmp_path / "run" / "responses.jsonl")) == 2
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    monkeypatch.undo()
    assert main(words) == 0


def test_two_models_on_the_same_prompts(tmp_path, capsys):
    model, tokens = tiny.model(), tiny.tokenizer()
    model.save_pretrained(tmp_path / "other")
    tokens.save_pretrained(tmp_path / "other")
    words = ["eval", "--task", "countdown", "prompts=12", "samples=2", "--against", str(tmp_path / "other")]
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "greedy: model minus against" in text
    assert "score" not in text, "it says what pass@1 says"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["against"]["pass@1"]["value"] == 0
    assert summary["comparison"]["pass@1"]["difference"] == pytest.approx(summary["pass@1"]["value"])
    assert summary["comparison"]["greedy"]["test"] == "McNemar, exact"
    first, second = (lines(tmp_path / "run" / f"{name}.jsonl") for name in ("responses", "against"))
    assert [r["prompt"] for r in first] == [r["prompt"] for r in second]


def test_open_ended_answers_are_right_from_the_score_that_is_asked_for(run, tmp_path):
    data = tmp_path / "d.jsonl"
    rows = [{"prompt": f"{i}+{i}=?\n", "answer": ["0 1 2 3 4 5 6 7 8 9", "#"]} for i in range(10)]
    data.write_text("\n".join(map(json.dumps, rows)))
    settings = {"data": str(data), "split": "train", "samples": 2, "reward": ["length:20"], "max_new_tokens": 4}
    assert "greedy_score" not in (run[0] / "report.txt").read_text()
    half = assess(EvalSettings(**settings, right=0.5), tmp_path / "half")
    assert half["n"] == 9
    assert half["score"]["value"] == half["pass@1"]["value"] == 1.0


def test_scores_between_are_shown_beside_the_share_of_right_ones():
    records = [
        {"greedy": "a", "greedy_score": 0.5, "responses": ["a", "b"], "scores": [0.5, 1.0]},
        {"greedy": "b", "greedy_score": 1.0, "responses": ["b", "b"], "scores": [1.0, 1.0]},
    ]
    settings = EvalSettings(samples=2)
    found = figures(records, settings)
    assert found["pass@1"]["value"] == pytest.approx(0.75)
    assert found["score"]["value"] == pytest.approx(0.875)
    assert (found["greedy"]["value"], found["greedy_score"]["value"]) == (0.5, 0.75)
    assert found["majority"]["value"] == pytest.approx(0.75), "two answers as frequent count half"
    text = table({**found, "against": found, "comparison": comparison(records, records, settings)})
    assert "\nscore " in text
    assert "greedy: model minus against -, p = 1" in text


def test_only_greedy(tmp_path):
    summary = assess(EvalSettings(task="chain", prompts=4, samples=0, dtype="bfloat16"), tmp_path / "run")
    assert "pass@1" not in summary
    assert summary["greedy"]["ci95"][0] >= 0


class FakeVLLM(types.ModuleType):
    """What we use of vLLM, recording how; vLLM itself needs a GPU."""

    class SamplingParams:
        def __init__(self, **given):
            self.given = given

    class LLM:
        def __init__(self, model, dtype, seed):
            from transformers import AutoTokenizer

            self.model, self.tokenizer, self.asked = model, AutoTokenizer.from_pretrained(model), []

        def get_tokenizer(self):
            return self.tokenizer

        def generate(self, prompts, params, use_tqdm):
            self.asked.append((prompts, [each.given for each in params]))
            said = types.SimpleNamespace(text="#1")
            return [types.SimpleNamespace(outputs=[said] * each.given["n"]) for each in params]


def test_vllm_is_asked_by_token_ids_behind_the_same_call(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", FakeVLLM("vllm"))
    monkeypatch.setattr(generation, "find_spec", lambda name: name)
    settings = EvalSettings(task="chain", prompts=5, samples=3, backend="vllm", temperature=0.6)
    model = generation.generator("starter", settings, 9)
    examples = get_task("chain").examples("test", 5, 0)
    assert model(examples, 3, 0.6, seed=7) == [["#1"] * 3] * 5
    prompts, given = model._model.asked[0]
    assert model._tokenizer.decode(prompts[0]["prompt_token_ids"]) == examples[0].prompt
    seeds = [each.pop("seed") for each in given]
    assert given == [{"n": 3, "temperature": 0.6, "top_p": 1.0, "max_tokens": 9}] * 5
    assert model(examples[:1], 3, 0.6, seed=12) == [["#1"] * 3], "the batch after these five"
    seeds += [each["seed"] for each in model._model.asked[1][1]]
    assert len({seed + k for seed in seeds for k in range(3)}) == 18, "no two samples share their noise"
    assert assess(settings, tmp_path / "run")["n"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["samples=0", "greedy=false"], "samples must be at least 1 with greedy=false"),
        (["k=[8]"], r"k must be 1 to 4, the number of samples, found \[8\]"),
        (["k=a"], "k must be a list of whole numbers"),
        (["temperature=0"], "temperature must be positive"),
        (["split=dev"], "split must be test or train, found 'dev'"),
        (["dtype=int4"], "dtype must be float32 or bfloat16"),
        (["max_steps=3"], "there is no setting 'max_steps'"),
    ],
)
def test_wrong_settings_are_named(words, message):
    with pytest.raises(UsageError, match=message):
        resolve(EvalSettings, {}, None, words)


def test_vllm_that_is_not_there_is_named():
    if generation.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    with pytest.raises(UsageError, match="backend=vllm needs vLLM, which is not installed"):
        generation.generator("starter", EvalSettings(backend="vllm"), 9)


def test_lists_of_k_in_every_spelling():
    for word in ("k=1,4", "k=[1, 4]"):
        assert resolve(EvalSettings, {}, None, [word]).ks == [1, 4]
    assert EvalSettings(samples=6).ks == [1, 2, 4]


def test_a_reward_outside_its_range_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def long(response, example):\n    return len(response) + 2\n")
    words = ["eval", "--task", "chain", "prompts=2", "samples=1", "--reward", f"{tmp_path / 'mine.py'}:long"]
    assert main([*words, "--output", str(tmp_path / "run")]) == 1
    assert "must give numbers in [0, 1], found" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
