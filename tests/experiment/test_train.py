"""``gcpo train`` as a user runs it: real processes, real files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gcpo.experiment import progress
from gcpo.experiment.progress import Interim, Metrics
from gcpo.experiment.resolve import resolve
from gcpo.experiment.rundir import RunDirectory
from gcpo.experiment.settings import TrainSettings, UsageError
from gcpo.signals import SIGNALS
from tests import tiny

SMALL = [
    *("max_steps=4", "per_device_train_batch_size=16", "num_generations=8", "num_iterations=1", "save_steps=2"),
    *("eval_prompts=8", "eval_samples=2"),
]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def gcpo(*words, **given):
    command = [sys.executable, "-m", "gcpo", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, **given)


def lines(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run of the quickstart, with --json."""
    output = tmp_path_factory.mktemp("quickstart") / "run"
    # TRL prints its table of completions; standard output stays one JSON document all the same.
    done = gcpo("train", "--json", *SMALL, "log_completions=true", "--output", output)
    assert done.returncode == 0, done.stderr
    return output, json.loads(done.stdout)


def test_the_run_directory_holds_what_it_promises(run):
    output, summary = run
    for name in ("config.yaml", "metrics.jsonl", "groups.jsonl", "summary.json", "report.html", "report.json"):
        assert (output / name).is_file(), name
    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary["status"] == "finished"
    for when in ("before", "after"):
        low, high = summary[when]["ci95"]
        assert low <= summary[when]["accuracy"] <= high
        assert summary[when]["n"] == 8
    assert yaml.safe_load((output / "config.yaml").read_text())["recipe"] == "gcpo"


def test_metrics_have_a_line_a_step_under_the_names_of_the_contract(run):
    metrics = lines(run[0] / "metrics.jsonl")
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    for name in (
        "reward/mean",
        "accuracy",
        "loss",
        "grad_norm",
        "gcpo/dead_groups",
        "gcpo/weight/mean",
        "gcpo/overhead_s",
    ):
        assert all(isinstance(m[name], float | int) for m in metrics), name
    assert all(m["gcpo/signal/barycentric_transport"] > 0 for m in metrics)


def test_recorded_groups_are_whole(run):
    groups = lines(run[0] / "groups.jsonl")
    assert {g["step"] for g in groups} == {1, 2, 3, 4}
    for group in groups:
        assert group["answer"]
        assert len(group["completions"]) == len(group["rewards"]) == len(group["map"]) == 8
        assert group["dead"] == (len(set(group["rewards"])) == 1)
        assert set(group["signals"]) == set(SIGNALS)


def test_by_default_a_batch_of_groups_of_four_is_used_twice(tmp_path):
    """Steps that draw nothing say nothing of rewards, and their groups are recorded once."""
    defaults = [word for word in SMALL if not word.startswith("num_")]
    done = gcpo("train", *defaults, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert all(isinstance(m["loss"], float) and m["grad_norm"] > 0 for m in metrics)
    assert [m["step"] for m in metrics if "reward/mean" in m] == [1, 3]
    groups = lines(tmp_path / "run" / "groups.jsonl")
    assert {(g["step"], len(g["rewards"])) for g in groups} == {(1, 4), (3, 4)}


def test_the_trained_policy_loads_as_any_other(run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(run[0] / "model")
    tokens = AutoTokenizer.from_pretrained(run[0] / "model")("1+1=?", return_tensors="pt").input_ids
    assert model.generate(tokens, max_new_tokens=2).shape[1] > tokens.shape[1]


def test_a_finished_run_is_not_run_again(run):
    again = gcpo("train", *SMALL, "log_completions=true", "--output", run[0])
    assert again.returncode == 2
    assert "holds a finished run" in again.stderr


def test_the_same_seed_gives_the_same_run(run, tmp_path):
    again = gcpo("train", "--json", *SMALL, "--output", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    first, second = lines(run[0] / "metrics.jsonl"), lines(tmp_path / "again" / "metrics.jsonl")
    for name in ("loss", "grad_norm", "reward/mean", "gcpo/weight/max"):
        assert [m[name] for m in first] == [m[name] for m in second]


def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(tmp_path):
    words = [*SMALL, "max_steps=-1", "num_train_epochs=1", "--output", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gcpo", "train", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=600)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert f"steps; the same command with --output {tmp_path / 'run'} goes on" in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["after"]) == ("interrupted", None)
    done = len(lines(metrics))
    assert summary["steps"] == done
    for name in ("report.html", "model/model.safetensors", f"checkpoints/checkpoint-{done}/model.safetensors"):
        assert (tmp_path / "run" / name).is_file(), name

    refused = gcpo("train", *words, "--seed", "5")
    assert refused.returncode == 2
    assert "unfinished run with another seed" in refused.stderr


def test_an_unfinished_run_resumes_and_finishes(tmp_path):
    # A run that stopped after its checkpoint at step 2 and wrote a metric it could not keep.
    words = [*SMALL, "--output", str(tmp_path / "run")]
    assert gcpo("train", *words).returncode == 0
    run = tmp_path / "run"
    whole = lines(run / "metrics.jsonl")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"status": "running", "after": None}))
    subprocess.run(["rm", "-r", str(run / "checkpoints" / "checkpoint-4")], check=True)
    resumed = gcpo("train", "--json", *words)
    assert resumed.returncode == 0, resumed.stderr
    again = json.loads(resumed.stdout)
    assert again["status"] == "finished"
    assert again["change"]["accuracy"] == pytest.approx(again["after"]["accuracy"] - again["before"]["accuracy"])
    metrics = lines(run / "metrics.jsonl")
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert metrics[:2] == whole[:2]
    assert metrics[1]["time"] < metrics[2]["time"] < metrics[3]["time"] <= again["seconds"] + 0.1


@pytest.fixture(scope="module")
def local_model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(directory)
    tokens = tiny.tokenizer()
    tokens.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    tokens.save_pretrained(directory)
    return directory


def test_a_chat_model_trains_on_rows_of_a_file(local_model, tmp_path):
    rows = [{"question": f"{i}+{i}=", "answer": f"so\n#### {2 * i}"} for i in range(40)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    done = gcpo(
        "train", "--json", "--model", local_model, "--data", data, "--prompt-field", "question", "max_steps=2",
        "eval_prompts=4", "eval_samples=1", "max_completion_length=8", "--system", "Be brief.", "--few-shot", "1",
        "--reward", "math,0.5*length:1", "--output", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["before"]["n"] == 4
    assert len(lines(tmp_path / "run" / "metrics.jsonl")) == 2
    # Prompts were posed as turns of the chat template, and are recorded with their gold answers all the same.
    groups = lines(tmp_path / "run" / "groups.jsonl")
    assert {g["answer"] for g in groups} <= {str(2 * i) for i in range(40)}
    assert all(g["prompt"].startswith("Be brief.\n") and g["prompt"].count("=") == 2 for g in groups)
    assert {r for g in groups for r in g["rewards"]} <= {0.0, 0.5, 1.0, 1.5}


def test_malformed_rows_end_before_anything_is_made(local_model, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2="}\n')
    done = gcpo("train", "--model", local_model, "--data", data, "--output", tmp_path / "run")
    assert done.returncode == 2
    assert "line 2: no field 'answer'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_report_of_several_runs(run, tmp_path):
    done = gcpo("report", run[0], run[0], "--output", tmp_path / "both.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "both.html").is_file()


def test_a_run_that_fails_says_so_and_keeps_what_it_had(tmp_path, monkeypatch):
    from gcpo.experiment import train as module
    from gcpo.experiment.settings import TrainSettings

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "_train", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        module.train(TrainSettings(eval_prompts=4, eval_samples=1), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["before"]["n"] == 4


def test_evaluating_on_the_way_changes_nothing_but_adds_a_curve(run, tmp_path):
    words = [*SMALL, "eval_every=1", "report=false", "--output", tmp_path / "run"]
    done = gcpo("train", "--json", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] is None
    assert not (tmp_path / "run/report.html").exists()
    policies = [(path / "model/model.safetensors").read_bytes() for path in (run[0], tmp_path / "run")]
    assert policies[0] == policies[1]
    evaluations = lines(tmp_path / "run/evaluations.jsonl")
    assert [e["step"] for e in evaluations] == [1, 2, 3]


def test_rewards_are_flipped_in_training_alone_and_the_held_out_prompts_are_no_matter_of_the_seed(run, tmp_path):
    words = [*SMALL, "reward_noise=1", "max_steps=1", "report=false", "--seed", "1", "--output", tmp_path / "run"]
    done = gcpo("train", "--json", *words)
    assert done.returncode == 0, done.stderr
    (step,) = lines(tmp_path / "run/metrics.jsonl")
    assert step["accuracy"] > 0
    assert step["reward/mean"] == pytest.approx(1 - step["accuracy"], abs=1e-6)
    assert json.loads(done.stdout)["before"] == run[1]["before"]


def test_evaluations_on_the_way_are_off_the_clock(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    directory = RunDirectory(tmp_path, {"command": "train"})
    recorder = Metrics(directory)
    recorder.on_train_begin(None, SimpleNamespace(max_steps=3, global_step=0), None)

    def evaluate():
        now[0] += 50
        return 0.5

    on_the_way = Interim(directory, recorder, 1, evaluate)
    for step in (1, 2, 3):
        now[0] += 7
        on_the_way.on_step_end(None, SimpleNamespace(global_step=step, max_steps=3), None)
    expected = [{"step": step, "time": 7.0 * step, "accuracy": 0.5} for step in (1, 2)]
    assert directory.lines("evaluations.jsonl") == expected, "the last step has the evaluation after training"


def test_trls_own_trainer_takes_the_steps_of_ours_with_its_recipe_and_nothing_left_out(tmp_path):
    words = [*SMALL, "--recipe", "grpo", "report=false", "gcpo_log_signals=[]", "gcpo_watch_gradients=false"]
    for host, more in (("trl", []), ("gcpo", ["gcpo_pack=false"])):
        done = gcpo("train", *words, *more, f"host={host}", "--output", tmp_path / host)
        assert done.returncode == 0, done.stderr
    policies = [(tmp_path / host / "model/model.safetensors").read_bytes() for host in ("trl", "gcpo")]
    assert policies[0] == policies[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["host=trl"], "host=trl knows the recipe grpo alone, found 'gcpo'"),
        (["host=verl"], "host must be gcpo or trl, found 'verl'"),
        (["host=trl", "recipe=grpo", "gcpo_first_draws=4"], "which has no gcpo_first_draws: leave it out"),
        (["reward_noise=1.5"], "reward_noise must be a share, 0 to 1, found 1.5"),
        (["eval_every=-1"], "eval_every must be at least 0"),
    ],
)
def test_settings_of_comparisons_that_make_no_sense(words, said):
    with pytest.raises(UsageError, match=said):
        resolve(TrainSettings, {}, None, words)
