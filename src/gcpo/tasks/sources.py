"""Rows of data from where they lie: a file, a directory or the hub.

    *.jsonl, *.json   an object a line; a list of objects, or an object of them by their id (as Qasper is published)
    *.csv, *.tsv      a header line, then a row a line; every value is text
    *.parquet         as any library writes it
    directory, hub id what ``datasets.load_dataset`` takes, with its configuration and split, or ``save_to_disk`` wrote

A row is a mapping from field names to values; ``where`` says what an error message calls it.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

SHOWN = 5
Row = Mapping[str, Any]


class RowError(ValueError):
    """A row cannot be read; the message says why."""


@dataclass(frozen=True)
class Source:
    """Where rows lie.

    Attributes:
        place: File, directory or hub id.
        config: Configuration ("subset") of a data set on the hub.
        split: Its split.
        revision: Branch, tag or commit of it.
    """

    place: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a single file."""
        return Path(self.place).is_file()

    def __str__(self) -> str:
        return self.place if self.is_file else ", ".join(filter(None, [self.place, self.config, self.split]))

    def rows(self) -> Iterator[tuple[str, Row | RowError]]:
        """Each row with what to call it, or why it cannot be read.

        Raises:
            ValueError: There is nothing, or it cannot be read at all.
        """
        if not self.is_file:
            return _hub(self)
        path = Path(self.place)
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise ValueError(
                f"{path} must end with one of {', '.join(_READERS)}, found {path.suffix!r}: convert or rename it."
            )
        return reader(path)


def _jsonl(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _object(line)


def _object(line: str) -> Row | RowError:
    try:
        line.encode()
        row: Any = json.loads(line)
    except UnicodeEncodeError:
        return RowError("not UTF-8")
    except RecursionError:
        return RowError("nested too deeply")
    except json.JSONDecodeError as error:
        return RowError(f"not JSON ({error.msg} at column {error.colno})")
    except ValueError as error:  # numbers of thousands of digits
        return RowError(f"not readable ({error})")
    return row if isinstance(row, dict) else RowError(f"not an object but {type(row).__name__}")


def _json(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON ({error}): mend it, or name it .jsonl if it has an object a line."
        ) from None
    if isinstance(content, dict):
        content = [{"id": name, **row} if isinstance(row, dict) else row for name, row in content.items()]
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a list of objects, found {type(content).__name__}.")
    for number, row in enumerate(content, 1):
        yield f"item {number}", row if isinstance(row, dict) else RowError(f"not an object but {type(row).__name__}")


def _csv(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    csv.field_size_limit(2**31 - 1)  # a long document is one field
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")
        try:
            for row in reader:
                fits = None not in row and None not in row.values()
                yield (
                    f"line {reader.line_num}",
                    row if fits else RowError(f"not {len(reader.fieldnames or ())} fields"),
                )
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is not CSV in UTF-8 ({error}): export it anew.") from None


def _parquet(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ValueError(f"{path} is not Parquet ({error}): export it anew.") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


_READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}


def _hub(source: Source) -> Iterator[tuple[str, Row | RowError]]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"{source.place} is no file, and data sets on the hub need the library datasets, which is not installed: "
            'check the path, or pip install "gcpo[train]".'
        ) from error
    directory = Path(source.place)
    try:
        divided = (directory / "dataset_dict.json").is_file()
        if divided or (directory / "state.json").is_file():
            _check_files(source, _saved(directory))
            rows = datasets.load_from_disk(source.place)
            rows = rows[source.split] if divided else rows
        else:
            builder = datasets.load_dataset_builder(source.place, name=source.config, revision=source.revision)
            _check_files(source, builder.config.data_files or {})
            builder.download_and_prepare()
            rows = builder.as_dataset(split=source.split)
    except StrangeFileError:
        raise
    # The hub, the network and the formats raise errors of many kinds; every one means that there are no rows.
    except Exception as error:
        raise ValueError(
            f"data must be a file, a directory or the id of a data set on the hub, found {source.place!r}, which "
            f"cannot be loaded (configuration {source.config}, split {source.split!r}): {error}"
        ) from error
    # As stored: a column of images or sound would be decoded, from whatever file its rows name.
    tables = rows.with_format("arrow").iter(1000)
    for number, row in enumerate((row for table in tables for row in table.to_pylist()), 1):
        yield f"row {number}", row


class StrangeFileError(ValueError):
    """A data set names a file that is not part of it."""


def _saved(directory: Path) -> dict[str, list[Path]]:
    """Which files a data set that ``save_to_disk`` wrote says it is made of, by its own JSON files."""
    splits = directory / "dataset_dict.json"
    parts = (
        [directory / name for name in json.loads(splits.read_text())["splits"]] if splits.is_file() else [directory]
    )
    files = {}
    for part in parts:
        state = part / "state.json"
        named = json.loads(state.read_text())["_data_files"] if state.is_file() else []
        files[str(part)] = [state, *(part / file["filename"] for file in named)]
    return files


def _check_files(source: Source, files: Mapping[Any, Iterable[Any]]) -> None:
    """A data set says itself which files it is made of, in its README or state, and may say any path or address."""
    local = Path(source.place).is_dir()
    home = f"{Path(source.place).resolve()}{os.sep}" if local else "hf://datasets/"
    for name in map(str, chain.from_iterable(files.values())):
        if not (os.path.realpath(name) if local else name).startswith(home):
            raise StrangeFileError(
                f"the data set {source.place!r} must be made of its own files, found {name!r} among them: remove it "
                "from the data set's README.md or state.json, or copy the file into the directory."
            )


def malformed(source: Source, faults: list[str]) -> ValueError:
    """The error that names the first malformed rows."""
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    shown = "\n".join(f"  {fault}" for fault in faults[:SHOWN])
    return ValueError(f"{source} has {len(faults)} malformed rows; mend or remove them:\n{shown}{more}")
