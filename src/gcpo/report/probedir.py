"""Read the directory of a probe, whole or cut short, into plain data fit for JSON.

The page trusts what leaves this module: an estimate has a ``value`` and a ``ci95`` of two numbers, either may be None;
a prompt is a group whose rewards begin with those that the signals saw. Notes as for a training run.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from gcpo.report.reading import Record, document, estimate, items, named, names, number, rows, text


def is_probe(directory: Path) -> bool:
    """Whether the run in ``directory`` is a probe, by its config.yaml."""
    return document(directory / "config.yaml", []).get("command") == "probe"


def read(directory: Path) -> Record:
    """Everything the page shows of the probe in ``directory``."""
    notes: list[str] = []
    config = document(directory / "config.yaml", notes)
    tracking, gaps = _tracking(document(directory / "tracking.json", notes))
    alignment = _mapped(document(directory / "alignment.json", notes), _conditions)
    groups = [_group(row, number(config.get("group_size"))) for row in rows(directory / "prompts.jsonl", notes)]
    return {
        "name": directory.resolve().name,
        "config": config,
        "summary": document(directory / "summary.json", notes),
        "signals": list(dict.fromkeys([*tracking, *names(groups, "signals")])),
        "targets": list(dict.fromkeys([*chain(*tracking.values()), *names(groups, "targets")])),
        "tracking": tracking,
        "gaps": gaps,
        "group_sizes": alignment.pop("group_sizes", {}),
        "alignment": alignment,
        "groups": groups,
        "notes": notes,
    }


def _tracking(table: Record) -> tuple[Record, Record]:
    """Signals by targets by measures, and the gaps: the rows that name the signal they are about."""
    gaps = {name: row for name, row in table.items() if isinstance(row, dict) and isinstance(row.get("signal"), str)}
    signals = {name: _mapped(row, _estimates) for name, row in table.items() if name not in gaps}
    return signals, {name: {**_mapped(row, _estimates), "signal": row["signal"]} for name, row in gaps.items()}


def _conditions(row: Any) -> Record:
    """The alignment under each condition, or of each group size."""
    return _mapped(row, _alignment)


def _alignment(cell: Any) -> Record:
    found = cell if isinstance(cell, dict) else {}
    return {"cosine": number(found.get("cosine")), "relative": estimate(found.get("relative"))}


def _estimates(values: Any) -> Record:
    return _mapped(values, estimate)


def _mapped(values: Any, each: Callable[[Any], Record]) -> Record:
    return {name: each(value) for name, value in values.items()} if isinstance(values, dict) else {}


def _group(row: Record, size: float | None) -> Record:
    """One prompt; its group is dead if the rewards that the signals saw are equal."""
    rewards = [number(reward) for reward in items(row.get("rewards"))]
    seen = int(size) if size else len(rewards)
    return {
        "prompt": text(row.get("prompt")),
        "rewards": rewards,
        "seen": min(seen, len(rewards)),
        "signals": named(row.get("signals")),
        "targets": named(row.get("targets")),
        "dead": len({reward for reward in rewards[:seen] if reward is not None}) < 2,
    }
