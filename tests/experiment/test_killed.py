"""Real processes of ``gcpo train``, killed for real, end where the run that was left alone ends, bit for bit."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.experiment import killer
from tests.experiment.test_train import ENVIRONMENT, gcpo, lines

# A generation batch serves a step and a half twice, so most checkpoints fall in the middle of one; and every
# checkpoint drives out the one before.
WORDS = [
    "max_steps=5", "save_steps=1", "save_total_limit=1", "per_device_train_batch_size=8",
    "gradient_accumulation_steps=2", "steps_per_generation=3", "num_iterations=2", "logging_steps=2",
    "eval_prompts=4", "eval_samples=1", "max_completion_length=12", "learning_rate=1e-3",
]  # fmt: skip
TIMES = ("time", "per_second", "_s", "runtime", "seconds", "embedding_share")


def traces(run):
    """All that a run leaves behind, but for times."""

    def timeless(record):
        return {k: v for k, v in record.items() if not k.endswith(TIMES)}

    page = json.loads((run / "report.json").read_text())["runs"][0]
    return {
        "parameters": (run / "model" / "model.safetensors").read_bytes(),
        "metrics": [json.dumps(timeless(record)) for record in lines(run / "metrics.jsonl")],
        "groups": (run / "groups.jsonl").read_text(),
        "rates": (run / "rates.json").read_text(),
        "summary": timeless(json.loads((run / "summary.json").read_text())) | {"report": None},
        "page": (page["groups"], page["signals"], timeless(page["metrics"]), page["notes"]),
    }


def assert_same(run, whole):
    found, expected = traces(run), traces(whole)
    for name in expected:
        assert found[name] == expected[name], name
    assert not list(run.glob(".*partial"))


def die(moment, times, *words):
    """Start a run that kills itself; what it said."""
    command = [sys.executable, killer.__file__, moment, str(times), *map(str, words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
    return done.stderr


def test_a_run_killed_while_it_writes_a_checkpoint_and_when_it_ends(whole, tmp_path):
    words = ["train", *WORDS, "--output", tmp_path / "run"]
    die("checkpoint-3/.gcpo_files.json", 1, *words)  # the third checkpoint lacks only the mark of a whole one
    assert {p.name[-1] for p in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")} == {"2", "3"}
    said = die(f"os.rename {tmp_path}/run/.summary.json.partial", 2, *words)  # all is done, but not said to be
    assert "checkpoint-3 is not whole (gcpo_files.json is missing) and is left out" in said
    done = gcpo(*words)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", whole)


# Before every event of the file system that is not like another, then at any time at all.
MOMENTS = [
    ("os.mkdir {run}", 1),
    ("os.rename {run}/.writable.partial", 1),
    ("os.rename {run}/.config.yaml.partial", 1),
    ("open {run}/metrics.jsonl", 1),
    ("os.rename {run}/.rates.json.partial", 1),
    ("os.rename {run}/.summary.json.partial", 1),
    ("os.mkdir {run}/checkpoints", 1),
    ("os.rename {run}/.metrics.jsonl.partial", 1),
    ("open {run}/groups.jsonl", 2),
    ("open {run}/checkpoints/checkpoint-1/.gcpo_files.json", 1),
    ("open {run}/checkpoints/checkpoint-4/tokenizer_config.json", 1),
    ("os.rename {run}/checkpoints/checkpoint-4/.gcpo_files.json", 1),
    ("open {run}/checkpoints/checkpoint-4/trainer_state.json", 1),
    ("shutil.rmtree {run}/checkpoints/checkpoint-3", 1),
    ("os.remove model.safetensors", 2),
    ("os.remove trainer_state.json", 2),
    ("os.rmdir {run}/checkpoints/checkpoint-2", 1),
    ("open {run}/metrics.jsonl", 2),
    ("shutil.rmtree {run}/model", 1),
    ("os.rename {run}/.model.partial", 1),
    ("os.rename {run}/.rates.json.partial", 2),
    ("open {run}/.report.html", 1),
    ("os.rename {run}/.summary.json.partial", 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "times"), MOMENTS)
def test_a_run_killed_at_any_event_of_the_file_system(whole, tmp_path, moment, times):
    words = ["train", *WORDS, "--output", tmp_path / "run"]
    die(moment.format(run=tmp_path / "run"), times, *words)
    done = gcpo(*words)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", whole)


@pytest.fixture(scope="module")
def seconds(whole, tmp_path_factory):
    """What a run takes here, imports included."""
    started = time.monotonic()
    assert gcpo("train", *WORDS, "--output", tmp_path_factory.mktemp("timed") / "run").returncode == 0
    return time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_run_killed_again_and_again_at_any_time(whole, seconds, tmp_path, seed):
    words = ["train", *WORDS, "--output", tmp_path / "run"]
    draw, kills, done = random.Random(seed), 0, False
    while not done:
        command = [sys.executable, "-m", "gcpo", *map(str, words)]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            _, error = process.communicate(timeout=draw.uniform(0.4, 1) * seconds if kills < 3 else None)
            done = True
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    # A kill may come when all is done.
    assert process.returncode == 0 or "holds a finished run" in error, error
    assert_same(tmp_path / "run", whole)
