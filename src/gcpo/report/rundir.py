"""Read a run directory, whole or cut short, into plain data fit for JSON.

The page trusts what leaves this module: lists of a group have one entry a response, numbers are finite or None,
and every mapping has string keys. Whatever had to be left out is said in ``notes``, which the page prints.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Record = dict[str, Any]


def read(directory: Path) -> Record:
    """Everything the page shows of the run in ``directory``.

    Raises:
        ValueError: If the directory or its metrics.jsonl does not exist.
    """
    if not (directory / "metrics.jsonl").is_file():
        what = "has no metrics.jsonl" if directory.is_dir() else "does not exist"
        raise ValueError(f"run directory {str(directory)!r} {what}; give the output directory of a training run.")
    notes: list[str] = []
    groups = [_group(row) for row in _rows(directory / "groups.jsonl", notes)]
    return {
        "name": directory.resolve().name,
        "config": _document(directory / "config.yaml", notes),
        "summary": _document(directory / "summary.json", notes),
        "metrics": _columns(_rows(directory / "metrics.jsonl", notes)),
        "signals": list(dict.fromkeys(name for group in groups for name in group["signals"])),
        "groups": groups,
        "notes": notes,
    }


def _document(path: Path, notes: list[str]) -> Record:
    """The mapping in a YAML or JSON file; empty where there is none or the file breaks off."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        content = None
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    notes.append(f"{path.name} could not be read and is left out.")
    return {}


def _rows(path: Path, notes: list[str]) -> list[Record]:
    """The JSON objects of a file with one a line; an interrupted run may leave half of one."""
    if not path.is_file():
        return []
    # Not str.splitlines: that would also cut at U+2028 inside a string.
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    rows = [row for row in map(_row, lines) if row is not None]
    skipped = len(lines) - len(rows)
    if skipped:
        notes.append(f"{skipped} unreadable line{'s' * (skipped > 1)} of {path.name} left out.")
    return rows


def _row(line: str) -> Record | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _columns(rows: list[Record]) -> dict[str, list[float | None]]:
    """The metrics as one list a name, ordered by step; where a resumed run repeats a step, its later line counts."""
    by_step = {row["step"]: row for row in rows if _number(row.get("step")) is not None}
    ordered = [by_step[step] for step in sorted(by_step)]
    columns = {name: [_number(row.get(name)) for row in ordered] for row in ordered for name in row}
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def _group(row: Record) -> Record:
    """One recorded group, every list as long as its completions."""
    completions = [_text(text) for text in _items(row.get("completions"))]
    size = len(completions)
    rewards = _numbers(row.get("rewards"), size)
    signals = row.get("signals")
    dead = row.get("dead")
    return {
        "step": _number(row.get("step")),
        "group": _number(row.get("group")),
        "prompt": _text(row.get("prompt")),
        "answer": _text(row.get("answer")),
        "completions": completions,
        "rewards": rewards,
        "advantages": _numbers(row.get("advantages"), size),
        "labels": _numbers(row.get("labels"), size),
        "signals": {name: _number(value) for name, value in signals.items()} if isinstance(signals, dict) else {},
        "weight": _number(row.get("weight")),
        "dead": dead if isinstance(dead, bool) else len({r for r in rewards if r is not None}) < 2,
        "map": [_numbers(point, 2) for point in _padded(row.get("map"), size)],
    }


def _number(value: Any) -> float | None:
    return +value if isinstance(value, int | float) and math.isfinite(value) else None  # + makes a number of True


def _numbers(values: Any, size: int) -> list[float | None]:
    return [_number(value) for value in _padded(values, size)]


def _items(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def _padded(values: Any, size: int) -> list[Any]:
    return (_items(values) + [None] * size)[:size]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    """``value`` with string keys, finite numbers, and text for what JSON has no word for, such as a date."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return _number(value)
    return value if value is None or isinstance(value, str | int) else str(value)
