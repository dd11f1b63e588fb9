"""A disk that is full or cannot be written is said in a sentence, and what is on it can be resumed."""

import json
import resource
import shutil
from collections import namedtuple

import pytest

from gcpo.cli import main
from gcpo.experiment.rundir import RunDirectory
from gcpo.experiment.settings import RunError, UsageError
from gcpo.tasks import get_task
from tests.experiment.test_killed import WORDS, assert_same
from tests.experiment.test_train import gcpo

FULL = "No space left on device"


def limited(size):
    """No file of the process can grow beyond ``size`` bytes: what it meets is what it meets on a full disk."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}


def test_a_checkpoint_on_a_full_disk_ends_the_run_in_a_sentence(tmp_path):
    done = gcpo("train", *WORDS, "--output", tmp_path / "run", **limited(5_000_000))  # policy 3.3 MB, optimizer 6.5 MB
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "gcpo train: the checkpoint of step 1 could not be written to" in done.stderr.splitlines()[-1]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert not (tmp_path / "run" / "checkpoints" / "checkpoint-1" / "gcpo_files.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2000, 1_000_000, 5_000_000])
def test_with_room_again_the_run_ends_as_if_there_always_had_been(whole, tmp_path, size):
    words = ["train", *WORDS, "--output", tmp_path / "run"]
    failed = gcpo(*words, **limited(size))
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "make room" in failed.stderr.splitlines()[-1]
    done = gcpo(*words)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_later_checkpoint_that_cannot_be_written_costs_no_more_than_itself(whole, tmp_path):
    words = ["train", *WORDS, "--output", tmp_path / "run"]
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(whole / "config.yaml", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "checkpoint-4").touch()  # a file where the directory should be
    failed = gcpo(*words)
    assert failed.returncode == 1
    assert "the checkpoint of step 4 could not be written" in failed.stderr.splitlines()[-1]
    (tmp_path / "run" / "checkpoints" / "checkpoint-4").unlink()
    done = gcpo(*words)
    assert done.returncode == 0, done.stderr
    assert "3/5" in done.stderr  # not from the beginning
    assert_same(tmp_path / "run", whole)


def test_an_output_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["train", *WORDS, "--output", str(tmp_path / "file" / "run")]) == 2
    assert "file/run cannot be written (Not a directory): choose another" in capsys.readouterr().err


def test_a_first_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / ".config.yaml.partial").symlink_to("/dev/full")
    with pytest.raises(UsageError, match=rf"cannot be written \({FULL}\): choose another"):
        RunDirectory(tmp_path, {"command": "train"})


def test_lines_and_files_that_cannot_be_written_are_named_and_stay_as_they_were(tmp_path):
    run = RunDirectory(tmp_path, {"command": "train"})
    run.write_summary({"status": "running"})
    (tmp_path / "groups.jsonl").symlink_to("/dev/full")
    (tmp_path / ".summary.json.partial").symlink_to("/dev/full")
    with pytest.raises(RunError, match=rf"groups.jsonl cannot be written \({FULL}\): make room"):
        run.append("groups.jsonl", {"step": 1})
    with pytest.raises(RunError, match=rf"summary.json cannot be written \({FULL}\): make room"):
        run.write_summary({"status": "failed"})
    assert run.summary() == {"status": "running"}
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]


def test_a_disk_without_room_for_the_policy_is_refused_and_a_small_one_warned_of(tmp_path, monkeypatch, capsys):
    from gcpo.experiment import train

    free = namedtuple("usage", "free")
    monkeypatch.setattr(train.shutil, "disk_usage", lambda _: free(2_000_000))
    with pytest.raises(
        UsageError, match="has 1 MiB free, but the policy alone takes 3 MiB: make room or choose another"
    ):
        train.train(train.TrainSettings(), tmp_path / "run")
    config = train.build_config(train.TrainSettings(), get_task("countdown"), tmp_path)
    model, _ = train.load_policy("starter", "cpu")
    monkeypatch.setattr(train.shutil, "disk_usage", lambda _: free(9_000_000))
    train._check_room(tmp_path, model, config)
    assert "has 8 MiB free, but the policy and 3 checkpoints may take 31 MiB" in capsys.readouterr().err
