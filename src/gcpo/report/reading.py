"""Files of a run directory, whole or cut short, as plain data fit for JSON.

Numbers are finite or None, and every mapping has string keys. Whatever had to be left out is said in ``notes``.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Record = dict[str, Any]


def document(path: Path, notes: list[str]) -> Record:
    """The mapping in a YAML or JSON file; empty where there is none or the file breaks off."""
    if not path.is_file():
        return {}
    raw = path.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(raw) if path.suffix == ".json" else yaml.safe_load(raw)
    except (ValueError, yaml.YAMLError):
        content = None
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    notes.append(f"{path.name} could not be read and is left out.")
    return {}


def rows(path: Path, notes: list[str]) -> list[Record]:
    """The JSON objects of a file with one a line; an interrupted run may leave half of one."""
    if not path.is_file():
        return []
    # Not str.splitlines: that would also cut at U+2028 inside a string.
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    whole = [row for row in map(_row, lines) if row is not None]
    skipped = len(lines) - len(whole)
    if skipped:
        notes.append(f"{skipped} unreadable line{'s' * (skipped > 1)} of {path.name} left out.")
    return whole


def _row(line: str) -> Record | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def number(value: Any) -> float | None:
    """``value`` if it is a finite number."""
    return +value if isinstance(value, int | float) and math.isfinite(value) else None  # + makes a number of True


def named(values: Any) -> dict[str, float | None]:
    """The numbers of a mapping; empty for anything else."""
    return {name: number(value) for name, value in values.items()} if isinstance(values, dict) else {}


def numbers(values: Any, size: int) -> list[float | None]:
    """``size`` numbers, None for those that are missing."""
    return [number(value) for value in padded(values, size)]


def estimate(value: Any) -> Record:
    """The ``value`` and ``ci95`` of an estimate, None where they are missing."""
    found = value if isinstance(value, dict) else {}
    low, high = numbers(found.get("ci95"), 2)
    return {"value": number(found.get("value")), "ci95": None if low is None or high is None else [low, high]}


def items(values: Any) -> list[Any]:
    """``values`` if it is a list; empty for anything else."""
    return values if isinstance(values, list) else []


def padded(values: Any, size: int) -> list[Any]:
    """The first ``size`` items, None for those that are missing."""
    return (items(values) + [None] * size)[:size]


def names(groups: list[Record], kind: str) -> list[str]:
    """Every name that a mapping of these records has, in order of appearance."""
    return list(dict.fromkeys(name for group in groups for name in group[kind]))


def text(value: Any) -> str:
    """``value`` as a string, in JSON if it is none; empty for None."""
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
        return number(value)
    return value if value is None or isinstance(value, str | int) else str(value)
