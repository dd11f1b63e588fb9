"""Whole benches of real training runs on the starter policy."""

import json
import signal
import subprocess
import sys
import time

import pytest

from gcpo.cli import main
from gcpo.experiment.bench import curves
from gcpo.experiment.bench.bench import _shared_prompts
from gcpo.experiment.bench.bench import bench as bench_of
from gcpo.experiment.bench.plan import parse
from gcpo.experiment.resolve import resolve
from gcpo.experiment.settings import TrainSettings, UsageError
from gcpo.experiment.train import _reward, train
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
num_generations = 8
num_iterations = 1
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


def test_tables_that_cannot_be_written_are_said_in_a_sentence_and_those_of_before_stay(bench, capsys):
    place, words, _ = bench
    words = [*map(str, words)]
    before = (place / "out/bench.json").read_text()
    (place / "out/.bench.json.partial").symlink_to("/dev/full")
    assert main(words) == 1
    assert "out/bench.json cannot be written (No space left on device): make room" in capsys.readouterr().err
    assert (place / "out/bench.json").read_text() == before
    assert main([*words, "--export", words[1]]) == 1
    assert "tiny.toml cannot be written (File exists)" in capsys.readouterr().err
    assert main(["bench", words[1], "--output", words[1]]) == 2
    assert "tiny.toml cannot be written (Not a directory): choose another" in capsys.readouterr().err


def test_wrong_words_are_refused_before_the_first_run(tmp_path, capsys):
    path = config(tmp_path / "tiny.toml", [0])
    path.write_text(path.read_text() + "learning_rat = 1\n")
    assert main(["bench", str(path), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "gcpo on countdown/starter: there is no setting 'learning_rat'; did you mean 'learning_rate'?" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("host", "uses", "responses"), [("gcpo", 1, 64), ("trl", 1, 64), ("gcpo", 2, 32)])
def test_a_curve_counts_every_response_that_was_graded(host, uses, responses, tmp_path, monkeypatch):
    """Also where a step takes several batches, which the host logs the mean length of, or several steps take one."""
    graded = []

    def counting(task, prompts):
        reward = _reward(task, prompts)

        def correct(completions, problem, completion_ids, **given):
            graded.extend(map(len, completion_ids))
            return reward(completions, problem, completion_ids=completion_ids, **given)

        return correct

    monkeypatch.setattr("gcpo.experiment.train._reward", counting)
    batches = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "steps_per_generation": 2}
    batches |= {"num_iterations": uses}
    small = {"max_steps": 2, "eval_prompts": 4, "eval_samples": 1, "report": False, "logging_steps": 1}
    train(resolve(TrainSettings, {"host": host, "recipe": "grpo", **batches, **small}), tmp_path / "run")
    cost = curves.read(tmp_path / "run").cost
    assert cost["samples"].tolist() == [0, len(graded)] == [0, responses]
    assert cost["tokens"][-1] == pytest.approx(sum(graded))


def test_prompts_that_tuning_and_reports_share_are_counted(tmp_path, capsys):
    """Of 20 rows 10 are held out, and 6 of them are asked: two draws of 6 share at least 2."""
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(20)))
    tasks = [{"name": "sums", "data": str(data), "held_out": 0.5}, {"task": "countdown"}]
    recipes = [{"recipe": "grpo"}]
    rates = {"learning_rates": [1e-4, 2e-4], "tuning_seeds": [7], "eval_prompts": 6}
    told = parse({"task": tasks, "recipe": recipes, **rates})
    found = _shared_prompts(told, [cell for cell in told.every_cell() if cell.tuning])
    assert list(found) == ["sums/starter"]
    assert found["sums/starter"]["of"] == 6
    assert 2 <= found["sums/starter"]["shared"] < 6
    assert (
        f"{found['sums/starter']['shared']} of 6 held-out prompts are also those of tuning" in capsys.readouterr().err
    )
    assert _shared_prompts(told, []) == {}


def test_every_candidate_is_checked_before_the_first_run(tmp_path):
    recipes = [{"recipe": "seed-grpo", "tune": {"gcpo_alpha": [0.1, -1.0]}}]
    told = parse({"task": [{"task": "chain"}], "recipe": recipes, "tuning_seeds": [7]})
    with pytest.raises(UsageError, match="seed-grpo on chain/starter: "):
        bench_of(told, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
