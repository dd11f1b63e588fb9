"""Runs kept in a file: a bench goes on elsewhere with the runs of before, and never with those of another one."""

import hashlib
import json
import subprocess
import sys

import pytest

from gcpo.experiment.bench.kept import Kept, _weights
from gcpo.experiment.bench.run import Runner
from gcpo.experiment.settings import RunError, UsageError
from tests.experiment.bench.test_run import STUB, cells, starts


def keeping(root, file):
    return Runner(root, 2, STUB, Kept(file))


def test_what_is_in_the_file_is_not_run_again_in_another_directory(tmp_path):
    file, (first, broken, last) = tmp_path / "kept" / "runs.jsonl", cells(0, 13, 1)
    keeping(tmp_path / "here", file).run([first, broken], lambda *_: None)
    there = keeping(tmp_path / "there", file)
    assert there.curve(first) is not None
    there.run([first, broken, last], lambda *_: None)
    assert [starts(tmp_path / "there", cell) for cell in (broken, last)] == [1, 1]
    again = keeping(tmp_path / "nowhere", file)
    assert [again.curve(cell) is not None for cell in (first, broken, last)] == [True, False, True]
    here, kept = Runner(tmp_path / "here", 1).curve(first), again.curve(first)
    assert kept.accuracy.tolist() == here.accuracy.tolist()
    assert {k: v.tolist() for k, v in kept.cost.items()} == {k: v.tolist() for k, v in here.cost.items()}
    assert again.versions([first, broken, last]) == [{"torch": "1", "runs": 2}]


def test_a_run_has_the_versions_it_was_run_with_whoever_adds_it(tmp_path):
    file, both = tmp_path / "runs.jsonl", cells(0, 1)
    before = Runner(tmp_path, 2, STUB)
    before.run(both, lambda *_: None)
    config = tmp_path / both[1].directory / "config.yaml"
    config.write_text(config.read_text().replace("torch: '1'", "torch: '0'"))
    counted = [{"torch": "1", "runs": 1}, {"torch": "0", "runs": 1}]
    assert before.versions(both) == counted
    for cell in both:
        keeping(tmp_path, file).keep(cell)
    assert keeping(tmp_path / "there", file).versions(both) == counted


def test_runs_of_other_settings_are_refused(tmp_path):
    file = tmp_path / "runs.jsonl"
    keeping(tmp_path / "here", file).run(cells(0), lambda *_: None)
    other = keeping(tmp_path / "there", file)
    other.check(cells(0))
    with pytest.raises(UsageError, match=r"seed=0 in .*runs.jsonl was run with another eval_prompts \(512, not 8\)"):
        other.check(cells(0, eval_prompts=8))


def test_runs_that_began_from_other_weights_are_refused(tmp_path):
    """The policy at a path was made anew: its runs of before are not those of this one."""
    file, policy = tmp_path / "runs.jsonl", tmp_path / "policy"
    policy.mkdir()
    (policy / "model.safetensors").write_bytes(b"first")
    begun = cells(0, model=[{"name": "warm", "model": str(policy)}])
    keeping(tmp_path / "here", file).run(begun, lambda *_: None)
    first = hashlib.sha256(b"first").hexdigest()
    assert json.loads(file.read_text())["weights"] == first
    keeping(tmp_path / "there", file).check(begun)
    (policy / "model.safetensors").write_bytes(b"second")
    second = hashlib.sha256(b"second").hexdigest()
    with pytest.raises(
        UsageError, match=rf"runs.jsonl began from other weights than .*policy has .*{first}, not {second}"
    ):
        keeping(tmp_path / "there", file).check(begun)
    (policy / "model.safetensors").unlink()  # nothing to compare with, and nothing to run from
    keeping(tmp_path / "there", file).check(begun)


def test_weights_of_a_run_that_another_bench_began_are_not_known(tmp_path):
    """It ended before there was a file, and the policy may have been made anew since."""
    file, policy = tmp_path / "runs.jsonl", tmp_path / "policy"
    policy.mkdir()
    (policy / "model.safetensors").write_bytes(b"first")
    ended, new = cells(0, 1, model=[{"name": "warm", "model": str(policy)}])
    Runner(tmp_path / "here", 1, STUB).run([ended], lambda *_: None)
    (policy / "model.safetensors").write_bytes(b"second")
    keeping(tmp_path / "here", file).run([ended, new], lambda *_: None)
    found = {line["cell"]: line["weights"] for line in map(json.loads, file.read_text().splitlines())}
    second = hashlib.sha256(b"second").hexdigest()
    assert found == {str(ended.directory): None, str(new.directory): second}


def test_weights_in_several_files_are_one_sum_and_packaged_ones_none(tmp_path):
    for part in ("model-1-of-2.safetensors", "model-2-of-2.safetensors", "training_args.bin"):
        (tmp_path / part).write_bytes(part.encode())
    both = _weights(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"other")
    assert _weights(tmp_path) == both is not None
    (tmp_path / "model-2-of-2.safetensors").write_bytes(b"other")
    assert _weights(tmp_path) not in (both, None)
    keeping(tmp_path, tmp_path / "runs.jsonl").run(cells(0), lambda *_: None)
    assert json.loads((tmp_path / "runs.jsonl").read_text())["weights"] is None


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"cell": "a", "settings": {}, "accuracy": "x"}'])
def test_a_line_that_is_no_run_is_named(line, tmp_path):
    file = tmp_path / "runs.jsonl"
    keeping(tmp_path, file).run(cells(0), lambda *_: None)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(UsageError, match=r"line 2 of .*runs.jsonl is no finished run"):
        Kept(file)
    with pytest.raises(UsageError, match=r"the runs in .* cannot be read"):
        Kept(tmp_path)


def test_a_file_that_cannot_be_written_is_said_and_nothing_is_lost(tmp_path):
    file, [cell] = tmp_path / "runs.jsonl", cells(0)
    found = keeping(tmp_path / "here", file)
    file.symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"runs.jsonl cannot be written \(No space left on device\)"):
        found.run([cell], lambda *_: None)
    file.unlink()
    again = keeping(tmp_path / "here", file)
    again.run([cell], lambda *_: None)
    assert starts(tmp_path / "here", cell) == 1
    again.keep(cell)
    assert Kept(file).curve(cell) is not None


LIMITED = """
import resource, sys
from gcpo.experiment.bench.kept import _append
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    _append(open(sys.argv[1], "a+b", buffering=0), 99 * "b")
except OSError as error:
    print(error)
"""


def test_a_line_that_the_disk_takes_in_part_is_taken_back(tmp_path):
    """A limit of 100 bytes is the disk that fills up: the second line of 100 has room for half of it."""
    file = tmp_path / "runs.jsonl"
    file.write_text(49 * "a" + "\n")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(file)], capture_output=True, text=True)
    assert "50 of 100 bytes were taken" in done.stdout, done.stderr
    assert file.read_text() == 49 * "a" + "\n"


def test_benches_share_a_file(tmp_path):
    """Two that began before either had finished anything."""
    file, (first, second) = tmp_path / "runs.jsonl", cells(0, 1)
    one, other = (keeping(tmp_path / name, file) for name in ("one", "other"))
    one.run([first], lambda *_: None)
    other.run([second], lambda *_: None)
    assert all(map(Kept(file).curve, (first, second)))


def test_what_another_bench_has_finished_meanwhile_is_not_run(tmp_path):
    file, [cell] = tmp_path / "runs.jsonl", cells(0)
    one, other = (keeping(tmp_path / name, file) for name in ("one", "other"))
    one.run([cell], lambda *_: None)
    told = []
    other.run([cell], lambda *each: told.append(each))
    assert starts(tmp_path / "other", cell) == 0
    assert [curve.final for _, curve in told] == [0.5]
    assert len(file.read_text().splitlines()) == 1


def test_what_another_bench_adds_meanwhile_with_other_settings_is_refused(tmp_path):
    """Also where this one has run the cell itself by then."""
    file, [ours], [theirs] = tmp_path / "runs.jsonl", cells(0), cells(0, eval_prompts=8)
    before, after = (keeping(tmp_path / name, file) for name in ("before", "after"))
    Runner(tmp_path / "after", 1, STUB).run([ours], lambda *_: None)
    keeping(tmp_path / "other", file).run([theirs], lambda *_: None)
    with pytest.raises(UsageError, match=r"was run with another eval_prompts \(8, not 512\)"):
        before.run([ours], lambda *_: None)
    assert starts(tmp_path / "before", ours) == 0
    with pytest.raises(UsageError, match=r"was run with another eval_prompts \(8, not 512\)"):
        after.keep(ours)


def test_of_a_cell_that_two_ran_at_once_the_first_to_end_counts(tmp_path):
    file, [cell] = tmp_path / "runs.jsonl", cells(0)
    one, other = (keeping(tmp_path / name, file) for name in ("one", "other"))
    Runner(tmp_path / "other", 1, STUB).run([cell], lambda *_: None)
    one.run([cell], lambda *_: None)
    before = file.read_text()
    other.keep(cell)
    assert file.read_text() == before


def test_two_lines_of_a_cell_may_differ_in_their_times_alone(tmp_path):
    file, [cell] = tmp_path / "runs.jsonl", cells(0)
    keeping(tmp_path, file).run([cell], lambda *_: None)
    line = json.loads(file.read_text())
    longer = {**line, "seconds": [0.0, 4.0]}
    file.write_text(file.read_text() + "\n" + json.dumps(longer) + "\n")
    assert Kept(file).curve(cell).cost["seconds"].tolist() == line["seconds"]
    file.write_text(file.read_text() + json.dumps(line | {"accuracy": [0.25, 0.75]}) + "\n")
    with pytest.raises(UsageError, match=r"line 4 of .*seed=0, which ends otherwise in a line before: remove one"):
        Kept(file)


def test_a_last_line_without_an_end_is_no_part_of_the_next(tmp_path):
    file, (first, second) = tmp_path / "runs.jsonl", cells(0, 1)
    keeping(tmp_path, file).run([first], lambda *_: None)
    file.write_text(file.read_text().rstrip("\n"))
    keeping(tmp_path, file).run([second], lambda *_: None)
    assert all(map(Kept(file).curve, (first, second)))
