"""A run directory is claimed once, resumed by its own settings only, and holds no half-written file."""

import json
import subprocess
import sys

import pytest

from gcpo.experiment.rundir import RunDirectory
from gcpo.experiment.settings import RunError, UsageError

CONFIG = {"command": "train", "seed": 0, "trainer": {"max_steps": 3}, "versions": {"torch": "1"}}


def test_a_new_directory_is_made_and_claimed(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b", CONFIG)
    assert not run.resumed
    assert (tmp_path / "a" / "b" / "config.yaml").is_file()


def test_the_same_settings_resume_whatever_the_versions(tmp_path):
    RunDirectory(tmp_path, CONFIG)
    assert RunDirectory(tmp_path, CONFIG | {"versions": {"torch": "2"}}).resumed


def test_other_settings_are_refused_and_named(tmp_path):
    RunDirectory(tmp_path, CONFIG)
    with pytest.raises(UsageError, match=r"holds an unfinished run with another seed \(0, not 1\)"):
        RunDirectory(tmp_path, CONFIG | {"seed": 1})


def test_a_run_that_failed_before_its_first_step_makes_way(tmp_path):
    run = RunDirectory(tmp_path, CONFIG)
    run.write_summary({"status": "failed", "before": {"accuracy": 0.5}})
    assert not RunDirectory(tmp_path, CONFIG | {"seed": 1}).resumed
    assert run.summary() == {}
    run.write_summary({"status": "failed"})
    run.append("metrics.jsonl", {"step": 1, "time": 2.5})
    assert run.seconds() == 2.5
    with pytest.raises(UsageError, match="another seed"):
        RunDirectory(tmp_path, CONFIG)


def test_a_finished_run_is_refused(tmp_path):
    RunDirectory(tmp_path, CONFIG).write_summary({"status": "finished", "report": "report.html"})
    with pytest.raises(UsageError, match="holds a finished run"):
        RunDirectory(tmp_path, CONFIG)


def test_a_directory_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds files but no run"):
        RunDirectory(tmp_path, CONFIG)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run", CONFIG)


def test_lines_are_on_disk_and_have_no_nan(tmp_path):
    run = RunDirectory(tmp_path, CONFIG)
    run.append("metrics.jsonl", {"step": 1, "loss": float("nan"), "rewards": [1.0, float("inf")]})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "rewards": [1.0, None]}


def test_resuming_forgets_later_steps_and_half_lines(tmp_path):
    run = RunDirectory(tmp_path, CONFIG)
    for step in (1, 2, 3):
        run.append("metrics.jsonl", {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')
    run.forget_after(2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_a_half_written_last_line_is_not_read(tmp_path):
    run = RunDirectory(tmp_path, CONFIG)
    run.append("metrics.jsonl", {"step": 1, "time": 2.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "time": 5')
    assert run.seconds() == 2.5
    assert run.lines("metrics.jsonl") == [{"step": 1, "time": 2.5}]
    assert run.lines("absent.jsonl") == []


def test_a_run_without_its_report_is_not_finished(tmp_path):
    RunDirectory(tmp_path, CONFIG).write_summary({"status": "finished"})
    assert RunDirectory(tmp_path, CONFIG).resumed


def test_a_run_killed_before_its_first_file_begins_anew(tmp_path):
    (tmp_path / ".config.yaml.partial").write_text("comm")
    assert not RunDirectory(tmp_path, CONFIG).resumed


def test_a_directory_is_written_whole_or_stays_as_it_was(tmp_path):
    run = RunDirectory(tmp_path, CONFIG)

    def fill(path):
        path.mkdir()
        (path / "weights").write_text("new")

    def fail(path):
        fill(path)
        raise OSError(28, "No space left on device")

    run.write_directory("model", fill)
    with pytest.raises(RunError, match=r"model cannot be written \(No space left on device\): make room"):
        run.write_directory("model", fail)
    assert (tmp_path / "model" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    run = RunDirectory(tmp_path, CONFIG)
    run.write_summary({"status": "running"})
    with pytest.raises(TypeError):
        run.write_summary({"status": object()})
    assert run.summary() == {"status": "running"}


def test_no_two_processes_have_one_directory(tmp_path):
    hold = "import sys; from gcpo.experiment.rundir import RunDirectory; from pathlib import Path\n"
    hold += f"run = RunDirectory(Path(sys.argv[1]), {CONFIG!r}); print('held', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", hold, str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="is in use by another process: wait for its end"):
            RunDirectory(tmp_path / "run", CONFIG)
        other.kill()
    assert RunDirectory(tmp_path / "run", CONFIG).resumed
