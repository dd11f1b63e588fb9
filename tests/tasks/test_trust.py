"""Data is read, never run, and has nothing to say about what other files are read."""

import json
import pickle

import pyarrow
import pyarrow.parquet
import pytest

from gcpo.tasks.data import DataTask
from gcpo.tasks.fields import Fields
from gcpo.tasks.sources import Source


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "secret.txt").write_text("a secret\n")
    return tmp_path / "secret.txt"


def data_set(directory, header, **files):
    directory.mkdir()
    (directory / "README.md").write_text(f"---\n{header}---\n")
    for name, content in files.items():
        (directory / f"{name}.jsonl").write_text(content)
    return Source(str(directory))


def names(path):
    return f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {path}\n"


@pytest.mark.parametrize("where", ["absolute", "above", "link"])
def test_a_data_set_cannot_name_files_outside_of_it(tmp_path, secret, where):
    path = {"absolute": secret, "above": "../secret.txt", "link": "link.txt"}[where]
    source = data_set(tmp_path / "set", names(path))
    (tmp_path / "set" / "link.txt").symlink_to(secret)
    with pytest.raises(ValueError, match=r"must be made of its own files, found .*: remove it"):
        list(source.rows())


def test_a_directory_beside_with_a_longer_name_is_outside_too(tmp_path):
    (tmp_path / "settled").mkdir()
    (tmp_path / "settled" / "x.txt").write_text("a secret\n")
    with pytest.raises(ValueError, match="must be made of its own files"):
        list(data_set(tmp_path / "set", names("../settled/x.txt")).rows())


def test_no_script_of_a_data_set_is_run(tmp_path):
    source = data_set(tmp_path / "set", "{}\n", train="{}\n")
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match="scripts are no longer supported"):
        list(source.rows())
    assert not (tmp_path / "ran").exists()


def test_a_column_of_images_is_not_opened(tmp_path, secret):
    image = {"path": str(secret), "bytes": None}
    header = "dataset_info:\n  features:\n  - name: prompt\n    dtype: string\n  - name: image\n    dtype: image\n"
    source = data_set(tmp_path / "set", header, train=json.dumps({"prompt": "p", "image": image}) + "\n")
    assert [row for _, row in source.rows()] == [{"prompt": "p", "image": image}]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_paths_and_pickles_in_rows_stay_text_and_bytes(tmp_path, secret, suffix):
    loaded = pickle.dumps(Touch(tmp_path / "ran"))
    rows = [{"prompt": f"{{{name}}} file://{secret}", "answer": str(secret), "more": loaded.hex()} for name in "ab"]
    file = tmp_path / f"d.{suffix}"
    if suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        features = {"info": {"features": {"more": {"_type": "Image"}}}}
        table = pyarrow.Table.from_pylist([row | {"more": loaded} for row in rows])
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), file)
    task = DataTask(file, Fields(template="{prompt} {more}"))
    examples = [*task.examples("train", 1, 0), *task.examples("test", 1, 0)]
    assert {e.answer for e in examples} == {str(secret)}
    assert all(f"file://{secret}" in e.prompt and "a secret" not in e.prompt for e in examples)
    assert not (tmp_path / "ran").exists()


def test_a_template_reaches_fields_alone(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"prompt": "p", "answer": "1"}\n{"prompt": "q", "answer": "1"}\n')
    for word in ("{prompt.__class__}", "{prompt[0]}", "{0}", "{}"):
        task = DataTask(tmp_path / "d.jsonl", Fields(template=f"{word} {{prompt}}"))
        assert task.examples("train", 1, 0)[0].prompt in (f"{word} p", f"{word} q")


@pytest.mark.parametrize("divided", [True, False])
def test_a_saved_data_set_cannot_name_files_outside_of_it(tmp_path, divided):
    Dataset, DatasetDict = (getattr(pytest.importorskip("datasets"), name) for name in ("Dataset", "DatasetDict"))
    mine, theirs = Dataset.from_dict({"prompt": ["1+1="]}), Dataset.from_dict({"prompt": ["a secret"]})
    theirs.save_to_disk(tmp_path / "theirs")
    (DatasetDict({"train": mine}) if divided else mine).save_to_disk(tmp_path / "set")
    source = Source(str(tmp_path / "set"))
    assert [row["prompt"] for _, row in source.rows()] == ["1+1="]
    path = tmp_path / "set" / ("train/state.json" if divided else "state.json")
    state = json.loads(path.read_text())
    state["_data_files"] = [{"filename": str(next((tmp_path / "theirs").glob("*.arrow")))}]
    path.write_text(json.dumps(state))
    with pytest.raises(ValueError, match="must be made of its own files"):
        list(source.rows())
