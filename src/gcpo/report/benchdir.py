"""Read the directory of a bench into plain data fit for JSON.

The page trusts what leaves this module: an estimate has a ``value`` and a ``ci95`` of two numbers, either may be None;
the columns of a curve are of one length. Notes as for a training run.
"""

from pathlib import Path
from typing import Any

from gcpo.report.reading import Record, document, estimate, items, mapped, number, numbers, text

_COSTS = ("steps", "samples", "tokens", "seconds")
_COMPARED = ("difference", "probability_of_improvement")


def is_bench(directory: Path) -> bool:
    """Whether a bench left its tables in ``directory``."""
    return (directory / "bench.json").is_file()


def read(directory: Path) -> Record:
    """Everything the page shows of the bench in ``directory``."""
    notes: list[str] = []
    bench = document(directory / "bench.json", notes)
    plan, failed = _asis(bench.get("plan")), _asis(bench.get("failed"))
    return {
        "name": directory.resolve().name,
        "config": plan | {"versions": bench.get("versions")},
        "summary": {"status": text(bench.get("status"))},
        "cells": [number(bench.get(name)) for name in ("finished", "cells")],
        "baseline": text(plan.get("baseline")),
        "scores": mapped(bench.get("scores"), lambda row: mapped(row, lambda score: _record(score, ("iqm", "mean")))),
        "comparisons": mapped(bench.get("comparisons"), _comparisons),
        "problems": mapped(bench.get("problems"), _problem),
        "tuning": mapped(bench.get("tuning"), lambda row: mapped(row, _tuned)),
        "notes": [*notes, *(f"Failed: {cell}: {text(reason)}" for cell, reason in failed.items())],
    }


def _asis(value: Any) -> Record:
    """A mapping; empty for anything else."""
    return value if isinstance(value, dict) else {}


def _comparisons(rows: Any) -> Record:
    return mapped(rows, lambda row: _record(row, _COMPARED, ("pairs", "better", "worse", "p", "p_holm")))


def _record(row: Any, estimates: tuple[str, ...], values: tuple[str, ...] = ()) -> Record:
    found = _asis(row)
    return {name: estimate(found.get(name)) for name in estimates} | {name: number(found.get(name)) for name in values}


def _problem(row: Any) -> Record:
    found = _asis(row)
    return {
        "target": number(found.get("target")),
        "recipes": mapped(found.get("recipes"), _recipe),
        "comparisons": mapped(found.get("comparisons"), _comparisons),
        "ratios": mapped(found.get("cost_ratios"), lambda row: mapped(_only(row, _COSTS), _ratio)),
    }


def _only(row: Any, names: tuple[str, ...]) -> Record:
    return {name: _asis(row).get(name) for name in names}


def _ratio(value: Any) -> Record:
    """An estimate whose interval may have one end, as where some resamples never reach the target."""
    found = _asis(value)
    ends = numbers(found.get("ci95"), 2)
    return {"value": number(found.get("value")), "ci95": None if ends == [None, None] else ends}


def _recipe(row: Any) -> Record:
    found = _asis(row)
    to, curve = _asis(found.get("to_target")), _asis(found.get("curve"))
    size = len(items(curve.get("accuracy")))
    return {
        "final": estimate(found.get("final")),
        "area": estimate(found.get("area")),
        "runs": len(_asis(found.get("runs"))),
        "curve": {name: numbers(curve.get(name), size) for name in ("accuracy", *_COSTS)}
        | {"ci95": [numbers(ends, 2) for ends in (items(curve.get("ci95")) + [None] * size)[:size]]},
        "reached": number(to.get("reached")),
        "censored": number(to.get("censored")),
        "median": {name: number(_asis(to.get("median")).get(name)) for name in _COSTS},
    }


def _tuned(row: Any) -> Record:
    found = _asis(row)
    return {
        "chosen": _asis(found.get("chosen")),
        "edges": [text(edge) for edge in items(found.get("edges"))],
        "candidates": [
            {"settings": _asis(c.get("settings")), "score": number(c.get("score"))}
            for c in items(found.get("candidates"))
            if isinstance(c, dict)
        ],
    }
