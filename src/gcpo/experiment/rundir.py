"""The run directory: everything a run leaves behind, enough to resume it, compare it and draw its report.

    config.yaml      resolved settings and versions      metrics.jsonl   a line a step
    groups.jsonl     a line a recorded group             summary.json    before, after, change, status
    checkpoints/     to resume from                      model/          the trained policy
    rates.json       share of right responses to each held-out prompt, before and after
    evaluations.jsonl   a line an evaluation on the way, if there are any
    report.html, report.json

Whole files and the model are written beside their place and moved there; lines are flushed as they are written, and a
half-written last one is dropped when the run goes on. So a run can be killed at any moment.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from gcpo.experiment.settings import RunError, UsageError
from gcpo.integrations.resume import CheckpointError, last_checkpoint
from gcpo.integrations.rewards import RewardError
from gcpo.tasks.rewards import RangeError

_LOCK = ".lock"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class RunDirectory:
    """A run's directory, opened for a fresh run or to resume one of the same settings.

    Args:
        path: The directory; made if it does not exist.
        config: What ``config.yaml`` holds; all but ``versions`` must agree for a run to be resumed.

    Raises:
        UsageError: It cannot be written, holds something else, a finished run, or a run of other settings.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        try:
            self.resumed = self._claim(config)
            if not self.resumed:
                self.write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
            (path / "metrics.jsonl").touch()
        except (OSError, RunError) as error:
            reason = getattr(error.__cause__ or error, "strerror", error)
            raise UsageError(f"the output {path} cannot be written ({reason}): choose another.") from error

    def _claim(self, config: Mapping[str, Any]) -> bool:
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_text("writable", "")
        (self.path / "writable").unlink()
        self._lock = self._locked()
        if all(p.name == _LOCK or p.name.endswith(".partial") for p in self.path.iterdir()):
            return False  # empty, or of a run killed before its first file
        if not (self.path / "config.yaml").is_file():
            raise UsageError(f"the output {self.path} holds files but no run: choose an empty directory.")
        if self.summary().get("status") == "finished" and "report" in self.summary():
            raise UsageError(f"the output {self.path} holds a finished run: choose another directory.")
        begun = self.seconds() > 0 or (self.path / "responses.jsonl").is_file()
        if self.summary().get("status") == "failed" and not begun:
            for name in ("summary.json", "rates.json"):  # of a run that failed before its first step
                (self.path / name).unlink(missing_ok=True)
            return False
        found = yaml.safe_load((self.path / "config.yaml").read_text())
        other = [key for key in config if key != "versions" and found.get(key) != config[key]]
        if other:
            raise UsageError(
                f"the output {self.path} holds an unfinished run with another {other[0]} "
                f"({found.get(other[0])!r}, not {config[other[0]]!r}): choose another directory."
            )
        return True

    def _locked(self) -> IO[str]:
        """Held by this process to its end: two that think they go on with one run would spoil each other's files."""
        file = (self.path / _LOCK).open("w")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UsageError(
                f"the output {self.path} is in use by another process: wait for its end, or choose another directory."
            ) from error
        return file

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds; empty if there is none."""
        return self.read_json("summary.json")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace ``summary.json``."""
        self.write_text("summary.json", json.dumps(plain(summary), indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file; empty if there is no such file."""
        file = self.path / name
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file, or leave the one that was there."""
        write_whole(self.path / name, text)

    @contextlib.contextmanager
    def noting_failure(self, summary: Mapping[str, Any]) -> Iterator[None]:
        """Write into the summary that the run failed, if it does; what is not our fault is said in a sentence."""
        try:
            yield
        except Exception as error:
            # Of two errors the first is told; a run that is said to be "running" resumes as well as a failed one.
            with contextlib.suppress(RunError):
                self.write_summary({**summary, "status": "failed"})
            disk = isinstance(error, OSError) and error.errno in _DISK
            if disk or isinstance(error, CheckpointError | RewardError | RangeError):
                raise RunError(str(error)) from error
            raise

    def write_directory(self, name: str, fill: Callable[[Path], Any]) -> None:
        """Let ``fill`` write a whole directory, or leave the one that was there."""
        partial = self.path / f".{name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            fill(partial)
            shutil.rmtree(self.path / name, ignore_errors=True)
            os.replace(partial, self.path / name)
        except Exception as error:  # writers of models raise errors of their own when a disk is full
            shutil.rmtree(partial, ignore_errors=True)
            raise _unwritten(self.path / name, error) from error

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a line to a ``.jsonl`` file, out of our hands when this returns."""
        line = json.dumps(plain(record)) + "\n"
        with writing(self.path / name), (self.path / name).open("a") as file:
            file.write(line)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The records of a ``.jsonl`` file, without a half-written last one; none if there is no such file."""
        file = self.path / name
        text = file.read_text() if file.is_file() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps after ``step``, which a resumed run takes again, and a half-written last line."""
        for name in ("metrics.jsonl", "groups.jsonl", "evaluations.jsonl"):
            if (self.path / name).is_file():
                kept = [line for line in self.lines(name) if line["step"] <= step]
                self.write_text(name, "".join(json.dumps(line) + "\n" for line in kept))

    def seconds(self) -> float:
        """Training time that the kept metrics account for."""
        kept = self.lines("metrics.jsonl")
        return float(kept[-1]["time"]) if kept else 0.0

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, to resume from; those that are not are named on standard error."""
        return last_checkpoint(self.path / "checkpoints")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses meanwhile is said in a sentence, as a ``RunError``."""
    try:
        yield
    except OSError as error:
        raise _unwritten(path, error) from error


def write_whole(path: Path, text: str) -> None:
    """Write a whole file, or leave the one that was there."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            partial.write_text(text)
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def _unwritten(path: Path, error: Exception) -> RunError:
    reason = getattr(error, "strerror", None) or error
    return RunError(
        f"{path} cannot be written ({reason}): make room or make it writable, then give the same command again, which "
        "goes on where this one stood."
    )


def plain(value: Any) -> Any:
    """JSON has no NaN: such numbers become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
