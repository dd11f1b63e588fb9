"""The scheduler with real processes of a stand-in for ``gcpo train``."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gcpo.experiment.bench import run
from gcpo.experiment.bench.bench import _run, _tune
from gcpo.experiment.bench.plan import parse
from gcpo.experiment.bench.run import Runner
from gcpo.experiment.settings import RunError, UsageError

STUB = (sys.executable, str(Path(__file__).with_name("stub.py")))


def cells(*seeds, **change):
    plan = parse({"task": [{"task": "chain"}], "recipe": [{"recipe": "grpo"}], **change})
    return [plan.cell(plan.problems[0], plan.recipes[0], {"learning_rate": 1e-4}, seed) for seed in seeds]


def runner(root):
    return Runner(root, 2, STUB)


def starts(root, cell):
    file = root / cell.directory / "starts"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def wait_until(true):
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_cell_that_fails_is_named_and_stops_no_other_and_none_is_run_twice(tmp_path):
    first, broken, last = cells(0, 13, 1)
    for again in (1, 2):
        found, told = runner(tmp_path), []
        found.run([first, broken, last], lambda *each, told=told: told.append(each))
        assert found.failed == {str(broken.directory): "exit code 1: it broke, by bad luck"}
        told = [(cell.seed, curve and curve.final) for cell, curve in told]
        assert sorted(told, key=str) == [(0, 0.5), (1, 0.5), (13, None)]
        assert [starts(tmp_path, cell) for cell in (first, broken, last)] == [1, again, 1]
    assert not (tmp_path / first.directory / "checkpoints").exists()


def test_tuning_goes_on_below_its_grid_and_runs_nothing_twice(tmp_path):
    """The stand-in ends alike at any rate, so that the smallest is chosen; those of seed 13 fail."""
    told = {"learning_rates": [1e-4, 2e-4], "tuning_seeds": [7], "widen": 2}
    plan = parse({"task": [{"task": "chain"}], "recipe": [{"recipe": "grpo"}], **told})
    _tune(plan, runner(tmp_path))
    rates = ("2.5e-05", "5e-05", "0.0001", "0.0002")
    runs = tmp_path / "chain/starter/grpo"
    assert {path.name for path in runs.iterdir()} == {f"lr={rate}" for rate in rates}
    assert [(runs / f"lr={rate}" / "seed=7/starts").read_text() for rate in rates] == ["started\n"] * 4
    broken = parse({"task": [{"task": "chain"}], "recipe": [{"recipe": "rloo"}], **told, "tuning_seeds": [13]})
    _tune(broken, found := runner(tmp_path))
    assert len(found.failed) == 2
    assert [(tmp_path / f"chain/starter/rloo/lr={rate}/seed=13/starts").read_text() for rate in rates[2:]] == [
        "started\n"
    ] * 2


def test_what_a_cell_cost(tmp_path):
    [cell] = cells(0)
    found = runner(tmp_path)
    found.run([cell], lambda *_: None)
    cost = found.curve(cell).cost
    assert {name: values.tolist() for name, values in cost.items()} == {
        "steps": [0, 2],
        "samples": [0, 16],
        "tokens": [0, 160],
        "seconds": [0, 3],
    }


def test_cells_of_other_settings_are_refused(tmp_path):
    found = runner(tmp_path)
    found.run(cells(0), lambda *_: None)
    found.check(cells(0))
    with pytest.raises(UsageError, match=r"was run with another eval_prompts \(512, not 8\): choose another --output"):
        found.check(cells(0, eval_prompts=8))


SCRIPT = """
import sys
from pathlib import Path
from tests.experiment.bench.test_run import cells, runner
runner(Path(sys.argv[1])).run(cells(0, 1, 2), lambda *_: None)
"""


def start(root, seconds=0, until=""):
    told = {"STUB_SECONDS": str(seconds), "STUB_UNTIL": str(until)}
    environment = os.environ | told | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(root)], env=environment, stderr=subprocess.PIPE)


def test_the_cells_of_a_killed_bench_run_to_their_end_and_the_next_bench_waits_for_them(tmp_path):
    all_cells = cells(0, 1, 2)
    process = start(tmp_path, until=tmp_path / "go")
    wait_until(lambda: all(starts(tmp_path, cell) for cell in all_cells[:2]))
    process.kill()
    process.communicate()
    found = runner(tmp_path)
    assert not any(map(found.curve, all_cells))
    threading.Timer(0.5, (tmp_path / "go").touch).start()
    found.run(all_cells, lambda *_: None)
    assert all(map(found.curve, all_cells))
    assert [starts(tmp_path, cell) for cell in all_cells] == [1, 1, 1]


def test_what_an_orphan_left_is_removed_by_the_next_bench(tmp_path):
    """The bench was killed, so nobody removed the checkpoints of the cell that ran on to its end."""
    [cell] = cells(0)
    subprocess.run([*STUB, "--config", settings_of(cell, tmp_path), "--output", tmp_path / cell.directory], check=True)
    (tmp_path / cell.directory / "model").mkdir()
    found = runner(tmp_path)
    _run(found, [cell], "report")
    assert starts(tmp_path, cell) == 1
    assert not any((tmp_path / cell.directory / left).exists() for left in ("checkpoints", "model"))


def settings_of(cell, root):
    (path := root / "settings.yaml").write_text(yaml.safe_dump(cell.settings.as_dict()))
    return path


def test_ctrl_c_ends_a_bench_that_waits_for_an_orphan(tmp_path):
    [cell] = cells(0)
    lock = tmp_path / f"{cell.directory}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = start(tmp_path, 0)
        wait_until(lambda: starts(tmp_path, cells(2)[0]))  # the other two are done meanwhile
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
    assert b"seed=0 is still being run, begun by a bench before: waiting for it" in said
    assert b"KeyboardInterrupt" in said
    assert starts(tmp_path, cell) == 0


def test_a_cell_has_one_thread_and_keeps_what_is_freed_unless_the_environment_says_otherwise(tmp_path, monkeypatch):
    given = []

    def popen(*words, env, **more):
        given.append(env)
        return subprocess.Popen(*words, env=env, **more)

    monkeypatch.setattr(run, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    runner(tmp_path).run(cells(0), lambda *_: None)
    [env] = given
    assert (env["OMP_NUM_THREADS"], env["MALLOC_TRIM_THRESHOLD_"]) == ("1", "7")
    assert env["MALLOC_MMAP_THRESHOLD_"] == run.KEEP_FREED["MALLOC_MMAP_THRESHOLD_"]


def test_ctrl_c_is_passed_on_once_and_nothing_new_begins(tmp_path):
    all_cells = cells(0, 1, 2)
    process = start(tmp_path, 60)
    wait_until(lambda: all(starts(tmp_path, cell) for cell in all_cells[:2]))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert b"KeyboardInterrupt" in said
    assert [starts(tmp_path, cell) for cell in all_cells] == [1, 1, 0]


def test_a_process_that_begins_while_ctrl_c_arrives_is_asked_to_end_too(tmp_path, monkeypatch):
    """The signal comes between the process's start and its being known; it would train to its end unasked."""
    [cell] = cells(0)
    found, begun = runner(tmp_path), []

    def popen(*words, **given):
        begun.append(subprocess.Popen(*words, **given))
        wait_until(lambda: starts(tmp_path, cell))
        os.kill(os.getpid(), signal.SIGINT)
        found._stopping.wait(1)  # a bench that does not wait for this one takes stock now
        return begun[0]

    monkeypatch.setenv("STUB_SECONDS", "5")
    monkeypatch.setattr(run, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))
    with pytest.raises(KeyboardInterrupt):
        found.run([cell], lambda *_: None)
    assert begun[0].returncode != 0
    assert found.curve(cell) is None


@pytest.mark.parametrize("name", ["seed=0.lock", ".seed=0.yaml.partial", "seed=0.log"])
def test_a_full_disk_is_said_in_a_sentence_and_what_runs_is_asked_to_end(name, tmp_path):
    full, other = cells(0, 1)
    place = (tmp_path / full.directory).parent
    place.mkdir(parents=True)
    (place / name).mkdir()  # what cannot be opened to write
    found = runner(tmp_path)
    with pytest.raises(RunError, match=r"seed=0.* cannot be written \(Is a directory\): make room"):
        found.run([full, other], lambda *_: None)
    (place / name).rmdir()
    again = runner(tmp_path)
    again.run([full, other], lambda *_: None)
    assert again.failed == {}
    assert again.curve(full).final == again.curve(other).final == 0.5
