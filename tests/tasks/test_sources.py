"""Rows are the same whatever they lie in, and what cannot be read is named."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from gcpo.tasks.data import DataTask
from gcpo.tasks.fields import Fields
from gcpo.tasks.sources import RowError, Source

ROWS = [{"question": f"{i}+{i}, “twice”\nwhat?", "answer": str(2 * i)} for i in range(1, 6)]


def jsonl(path):
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def as_json(path):
    path.write_text(json.dumps(ROWS))


def table(path, dialect="excel"):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"], dialect=dialect)
        writer.writeheader()
        writer.writerows(ROWS)


def parquet(path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def tabs(path):
    table(path, "excel-tab")


@pytest.mark.parametrize(
    ("name", "write"),
    [("d.jsonl", jsonl), ("d.json", as_json), ("d.csv", table), ("d.tsv", tabs), ("d.parquet", parquet)],
)
def test_every_format_gives_the_same_rows(tmp_path, name, write):
    write(tmp_path / name)
    assert [row for _, row in Source(str(tmp_path / name)).rows()] == ROWS
    assert DataTask(tmp_path / name, Fields("question")).count("train") == 4


def test_a_directory_in_the_layout_of_the_hub_is_read_by_split_and_configuration(tmp_path):
    for config in ("main", "other"):
        (tmp_path / "set" / config).mkdir(parents=True)
        for split, rows in (("train", ROWS[:3]), ("test", ROWS[3:])):
            part = pyarrow.Table.from_pylist([{**row, "config": config} for row in rows])
            pyarrow.parquet.write_table(part, tmp_path / "set" / config / f"{split}-00000-of-00001.parquet")
    header = "configs:\n" + "".join(
        f"- config_name: {c}\n  data_files:\n"
        + "".join(f"  - split: {s}\n    path: {c}/{s}-*\n" for s in ("train", "test"))
        for c in ("main", "other")
    )
    (tmp_path / "set" / "README.md").write_text(f"---\n{header}---\n")
    place = str(tmp_path / "set")
    assert [row for _, row in Source(place, "other", "test").rows()] == [{**r, "config": "other"} for r in ROWS[3:]]
    task = DataTask(Source(place, "main"), Fields("question"), test=Source(place, "main", "test"))
    assert (task.count("train"), task.count("test")) == (3, 2)
    with pytest.raises(ValueError, match=r"cannot be loaded \(configuration main, split 'dev'\)"):
        list(Source(place, "main", "dev").rows())


def test_what_save_to_disk_wrote_is_read_whole_or_by_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"prompt": str(i)} for i in range(6)])
    rows.save_to_disk(tmp_path / "whole")
    parts = {"train": rows.select(range(4)), "test": rows.select(range(4, 6))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "divided")

    def read(place, split):
        return [row["prompt"] for _, row in Source(str(tmp_path / place), split=split).rows()]

    assert read("whole", "train") == list("012345")
    assert (read("divided", "train"), read("divided", "test")) == (list("0123"), list("45"))
    with pytest.raises(ValueError, match=r"cannot be loaded .*split 'dev'"):
        read("divided", "dev")


def test_what_is_not_there_or_unknown_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="data must be a file, a directory or the id of a data set on the hub, found"):
        list(Source("nobody/nothing").rows())
    (tmp_path / "d.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"must end with one of \.jsonl, .* found '\.xlsx'"):
        list(Source(str(tmp_path / "d.xlsx")).rows())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", b"{", "is not JSON"),
        ("d.json", b"3", "must hold a list of objects, found int"),
        ("d.parquet", b"PAR", "is not Parquet"),
        ("d.csv", b"question\n\xff\n", "is not CSV in UTF-8"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(Source(str(tmp_path / name)).rows())


def test_rows_that_do_not_fit_their_header_are_named(tmp_path):
    (tmp_path / "d.csv").write_text("question,answer\na,1\nb\nc,1,2\n")
    rows = list(Source(str(tmp_path / "d.csv")).rows())
    assert [type(row) for _, row in rows] == [dict, RowError, RowError]
    with pytest.raises(ValueError, match=r"has 2 malformed rows.*\n  line 3: not 2 fields"):
        DataTask(tmp_path / "d.csv", Fields("question"))
