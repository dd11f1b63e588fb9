"""Whole benches of real training runs on the starter policy."""

import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from gcpo.cli import main
from gcpo.experiment.bench.bench import _chosen
from gcpo.experiment.bench.bench import bench as bench_of
from gcpo.experiment.bench.curves import COSTS, Curve
from gcpo.experiment.bench.plan import parse
from gcpo.experiment.settings import RunError, UsageError
from tests.experiment.test_train import ENVIRONMENT, gcpo, lines

TINY = """
steps = 2
eval_every = 1
eval_prompts = 8
eval_samples = 2
seeds = {seeds}
{more}
[settings]
per_device_train_batch_size = 16
max_completion_length = 24
[[task]]
task = "countdown"
reward_noise = 0.2
[[recipe]]
name = "trl"
recipe = "grpo"
host = "trl"
[[recipe]]
recipe = "gcpo"
"""
TIMES = ("seconds", "report")
GRID = {"learning_rates": [1e-4, 2e-4], "tuning_seeds": [7]}


def config(path, seeds, more=""):
    path.write_text(TINY.format(seeds=seeds, more=more))
    return path


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not k.endswith(TIMES)}
    return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A bench of one seed, finished."""
    place = tmp_path_factory.mktemp("bench")
    words = ["bench", config(place / "tiny.toml", [0]), "--output", place / "out", "--jobs", "2"]
    done = gcpo(*words, "--export", place / "tables")
    assert done.returncode == 0, done.stderr
    return place, words, done


def cells(place):
    return {name: place / "out/cells/countdown/starter" / name / "lr=0.0002/seed=0" for name in ("trl", "gcpo")}


def test_runs_of_one_seed_are_paired(bench):
    """The same prompts and responses at the first step, the same start and the same held-out prompts."""
    runs = cells(bench[0])
    first = {name: lines(run / "metrics.jsonl")[0] for name, run in runs.items()}
    for metric in ("reward/mean", "accuracy", "num_tokens", "completions/mean_length"):
        assert first["trl"][metric] == first["gcpo"][metric], metric
    rates = {name: json.loads((run / "rates.json").read_text()) for name, run in runs.items()}
    assert rates["trl"]["before"] == rates["gcpo"]["before"]
    assert rates["trl"]["after"] != rates["trl"]["before"]


def test_what_a_bench_leaves(bench):
    place, _, done = bench
    result = json.loads((place / "out/bench.json").read_text())
    assert (result["status"], result["cells"], result["finished"]) == ("finished", 2, 2)
    assert set(result["scores"]) == {"trl", "gcpo"}
    curve = result["problems"]["countdown/starter"]["recipes"]["gcpo"]["curve"]
    assert curve["steps"] == [0, 1, 2]
    assert curve["samples"] == [0, 16, 32]
    assert 0 < curve["tokens"][1] < curve["tokens"][2] <= 32 * 24
    assert 0 < curve["seconds"][1] < curve["seconds"][2]
    assert (place / "out/report.html").is_file()
    assert {path.name for path in (place / "tables").iterdir()} >= {"bench.md", "scores.csv", "curves.csv"}
    assert "Final accuracy against trl, paired by seed" in done.stdout
    for run in cells(place).values():
        assert not (run / "checkpoints").exists()
        assert not (run / "model").exists()


def test_a_finished_bench_runs_nothing_and_says_the_same(bench, capsys):
    place, words, _ = bench
    logs = [run.with_name("seed=0.log").read_text() for run in cells(place).values()]
    before = (place / "out/bench.json").read_text()
    assert main([*map(str, words), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(before)
    assert [run.with_name("seed=0.log").read_text() for run in cells(place).values()] == logs


def test_wrong_words_are_refused_before_the_first_run(tmp_path, capsys):
    path = config(tmp_path / "tiny.toml", [0])
    path.write_text(path.read_text() + "learning_rat = 1\n")
    assert main(["bench", str(path), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "gcpo on countdown/starter: there is no setting 'learning_rat'; did you mean 'learning_rate'?" in said
    assert not (tmp_path / "out").exists()


def test_every_candidate_is_looked_at_before_the_first_run(tmp_path):
    plan = parse(
        {"task": [{"task": "countdown"}], "tuning_seeds": [7]}
        | {"recipe": [{"recipe": "seed-grpo", "tune": {"gcpo_alpha": [0.1, -1.0]}}]}
    )
    with pytest.raises(UsageError, match="alpha must be at least 0"):
        bench_of(plan, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_nothing_is_chosen_of_a_tuning_that_has_not_ended(tmp_path):
    plan = parse({"task": [{"task": "countdown"}], "recipe": [{"recipe": "grpo"}]} | GRID)
    finished = [cell for cell in plan.tuning_cells() if cell.candidate["learning_rate"] == 1e-4]
    curve = Curve(np.zeros(2), {name: np.arange(2.0) for name in COSTS})
    runner = SimpleNamespace(failed={}, curve=lambda cell: curve if cell in finished else None)
    assert _chosen(plan, runner)["countdown/starter"]["grpo"]["chosen"] is None
    runner.failed = {str(cell.directory): "it broke" for cell in plan.tuning_cells() if cell not in finished}
    assert _chosen(plan, runner)["countdown/starter"]["grpo"]["chosen"] == {"learning_rate": 1e-4}


def test_a_directory_that_cannot_be_written_ends_a_bench_in_a_sentence(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/cells").write_text("in the way")
    plan = parse({"task": [{"task": "countdown"}], "recipe": [{"recipe": "grpo"}], "seeds": [0]})
    with pytest.raises(RunError, match=r"cannot be written .*: make room or make it writable, then give the same"):
        bench_of(plan, tmp_path / "out", 1)


@pytest.mark.slow
def test_a_bench_killed_again_and_again_ends_where_one_left_alone_does(tmp_path):
    path = config(tmp_path / "tiny.toml", [0, 1], "learning_rates = [1e-4, 2e-4]\ntuning_seeds = [7]")
    whole = gcpo("bench", path, "--output", tmp_path / "whole", "--jobs", "2", "--json")
    assert whole.returncode == 0, whole.stderr
    words = ["bench", path, "--output", tmp_path / "killed", "--jobs", "2", "--json"]
    command = [sys.executable, "-m", "gcpo", *map(str, words)]
    for how, seconds in ((signal.SIGKILL, 25), (signal.SIGINT, 35), (signal.SIGKILL, 15)):
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(how)
        process.wait()
    done = gcpo(*words)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), json.loads(whole.stdout)
    assert timeless(found) == timeless(expected)
