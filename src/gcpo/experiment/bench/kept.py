"""Finished runs of a bench in one file, ``gcpo bench --runs FILE``: a comparison of days can go on elsewhere.

A line of JSON a run: its ``cell`` (TASK/MODEL/RECIPE/lr=RATE/seed=SEED), its ``settings``, the ``versions`` it was run
with, the SHA-256 of the ``weights`` it began from, and its curve, ``accuracy`` by ``steps``, ``samples``, ``tokens``
and ``seconds``. Weights are null where they were not in a directory, or another bench began the run: then they are not
known. What is in the file is not run again; what ends is added. So its run directories can be left behind, and benches
can share a file, also at a time: each looks at what the others added before it begins a run. Of a cell that two ran
at once the first to end counts.
"""

import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gcpo.experiment.bench.curves import COSTS, Curve
from gcpo.experiment.bench.plan import Cell
from gcpo.experiment.rundir import writing
from gcpo.experiment.settings import UsageError
from gcpo.policies import POLICIES


class Kept:
    """The runs in a file.

    Args:
        path: The file; it may not exist yet.

    Raises:
        UsageError: The file cannot be read, a line of it is no run, or two say otherwise of one cell.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, dict[str, Any]] = {}
        self._read = self._ends = 0  # bytes of the file that are in _lines, and ends of lines in them
        self._reading = threading.Lock()
        self._weights: dict[str, str | None] = {}  # of each model when first asked for
        self._began: dict[str, str | None] = {}  # what each cell that was begun here began from
        self.refresh()

    def refresh(self) -> None:
        """Read what other benches have added."""
        try:
            if self._path.exists():
                with self._reading, self._path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
                    self._take(file)
        except OSError as error:
            raise UsageError(f"the runs in {self._path} cannot be read: {error}.") from error

    def _take(self, file: BinaryIO) -> None:
        end = file.seek(0, os.SEEK_END)
        file.seek(self._read)
        data = file.read(max(0, end - self._read))
        for number, text in enumerate(data.split(b"\n"), self._ends + 1):
            if not text:
                continue
            name, line = _line(self._path, number, text)
            if not _same_end(line, self._lines.setdefault(name, line)):
                raise UsageError(
                    f"line {number} of {self._path} has {name}, which ends otherwise in a line before: remove one."
                )
        self._read, self._ends = self._read + len(data), self._ends + data.count(b"\n")

    def curve(self, cell: Cell) -> Curve | None:
        """The curve of a cell; None if it is not in the file."""
        line = self._lines.get(str(cell.directory))
        return None if line is None else _curve(line)

    def add(self, cell: Cell, curve: Curve, versions: Mapping[str, Any]) -> None:
        """Write a finished run to the file, unless it is there.

        Args:
            cell: The cell.
            curve: Its curve.
            versions: What it was run with.

        Raises:
            RunError: The disk is full.
            UsageError: Another bench has added it meanwhile, with other settings or from other weights.
        """
        name = str(cell.directory)
        if name in self._lines:
            return
        costs = {cost: curve.cost[cost].tolist() for cost in COSTS}
        line = {"settings": cell.settings.as_dict(), "versions": dict(versions), "weights": self._began.get(name)}
        line |= {"accuracy": curve.accuracy.tolist(), **costs}
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._reading, self._path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._take(file)
                if name not in self._lines:
                    _append(file, json.dumps({"cell": name, **line}))
                    self._take(file)
        self.check([cell])  # another bench may have added it meanwhile

    def check(self, cells: Iterable[Cell]) -> None:
        """Refuse runs of other settings or from other weights.

        Raises:
            UsageError: A cell is in the file with other settings, or began from other weights than are there now.
        """
        for cell in cells:
            line = self._lines.get(str(cell.directory))
            if line is None:
                continue
            weights = self._weights_now(cell)
            cell.same(line["settings"], f"{cell.directory} in {self._path}", "file for --runs")
            if None not in (weights, line["weights"]) and weights != line["weights"]:
                raise UsageError(
                    f"{cell.directory} in {self._path} began from other weights than {cell.settings.model} has "
                    f"(SHA-256 {line['weights']}, not {weights}): put those back, or choose another file for --runs."
                )

    def versions(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell was run with; None if it is not in the file."""
        line = self._lines.get(str(cell.directory))
        return None if line is None else line["versions"]

    def begin(self, cell: Cell) -> None:
        """Note what a run begins from; to be called as it begins, not when it goes on from a checkpoint."""
        self._began[str(cell.directory)] = self._weights_now(cell)

    def _weights_now(self, cell: Cell) -> str | None:
        model = cell.settings.model
        if model not in self._weights:
            self._weights[model] = None if model in POLICIES else _weights(Path(model))
        return self._weights[model]


def _weights(model: Path) -> str | None:
    """SHA-256 of a directory's files of weights (of their SHA-256, if there are several); None if it has none."""
    files = sorted(path for kind in ("safetensors", "bin") for path in model.glob(f"*model*.{kind}"))
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(each.digest() for each in digests)).hexdigest() if digests else None


def _append(file: BinaryIO, line: str) -> None:
    """A whole line or none of it, also behind a last line without an end."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    whole = end == 0 or file.read(1) == b"\n"
    data = (b"" if whole else b"\n") + line.encode() + b"\n"
    if (written := file.write(data)) != len(data):
        file.truncate(end)
        raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were taken")


def _same_end(line: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs are one but for their times."""
    return all(line[key] == other[key] for key in ("accuracy", *COSTS) if key != "seconds")


def _line(path: Path, number: int, text: bytes) -> tuple[str, dict[str, Any]]:
    try:
        line = json.loads(text)
        _curve(line)
        return line.pop("cell"), {"settings": line["settings"], "versions": line["versions"], "weights": None, **line}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"line {number} of {path} is no finished run ({error!r}): remove it.") from error


def _curve(line: dict[str, Any]) -> Curve:
    return Curve(np.array(line["accuracy"], float), {cost: np.array(line[cost], float) for cost in COSTS})
