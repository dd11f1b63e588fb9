"""The run directory: everything a run leaves behind, enough to resume it, compare it and draw its report.

    config.yaml      resolved settings and versions      metrics.jsonl   a line a step
    groups.jsonl     a line a recorded group             summary.json    before, after, change, status
    checkpoints/     to resume from                      model/          the trained policy
    rates.json       share of right responses to each held-out prompt, before and after
    report.html, report.json

Whole files are written beside their place and moved there; lines are flushed as they are written.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gcpo.experiment.settings import UsageError


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
        self.resumed = self._claim(config)
        if not self.resumed:
            self.write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
            (path / "metrics.jsonl").touch()

    def _claim(self, config: Mapping[str, Any]) -> bool:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"the output {self.path} cannot be written ({error.strerror}): choose another."
            ) from error
        if not any(self.path.iterdir()):
            return False
        if not (self.path / "config.yaml").is_file():
            raise UsageError(f"the output {self.path} holds files but no run: choose an empty directory.")
        if self.summary().get("status") == "finished":
            raise UsageError(f"the output {self.path} holds a finished run: choose another directory.")
        if self.summary().get("status") == "failed" and not self.seconds():
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
        partial = self.path / f".{name}.partial"
        partial.write_text(text)
        os.replace(partial, self.path / name)

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a line to a ``.jsonl`` file, on disk when this returns."""
        with (self.path / name).open("a") as file:
            file.write(json.dumps(plain(record)) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps after ``step``, which a resumed run takes again, and a half-written last line."""
        for name in ("metrics.jsonl", "groups.jsonl"):
            file = self.path / name
            if not file.is_file():
                continue
            whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            self.write_text(name, "".join(line for line in whole if json.loads(line)["step"] <= step))

    def seconds(self) -> float:
        """Training time that the kept metrics account for."""
        file = self.path / "metrics.jsonl"
        kept = file.read_text().splitlines() if file.is_file() else []
        return float(json.loads(kept[-1])["time"]) if kept else 0.0

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint to resume from."""
        steps = {int(p.name.split("-")[-1]): p for p in (self.path / "checkpoints").glob("checkpoint-*")}
        whole = {step: p for step, p in steps.items() if (p / "trainer_state.json").is_file()}
        return whole[max(whole)] if whole else None


def plain(value: Any) -> Any:
    """JSON has no NaN: such numbers become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
