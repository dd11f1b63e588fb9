"""Read the directory of a bench into plain data fit for JSON.

The page trusts what leaves this module: an estimate has a ``value`` and a ``ci95`` of two numbers, either may be None;
the columns of a curve are of one length. Of a ratio of costs None stands for infinity. Notes as for a training run.
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
        "notes": [*notes, *_caveats(bench), *(f"Failed: {cell}: {text(reason)}" for cell, reason in failed.items())],
    }


def _caveats(bench: Record) -> list[str]:
    """What a reader of the scores should know."""
    problems = _asis(bench.get("problems"))
    left_out = [name for name in problems if name not in items(bench.get("scored", list(problems)))]
    shared = mapped(bench.get("shared_prompts"), lambda row: numbers([_asis(row).get(k) for k in ("shared", "of")], 2))
    return [
        *(f"The result is without {name}, on which not every recipe has a run." for name in left_out),
        *(f"{name}: {both} of {n} held-out prompts are also those of tuning." for name, (both, n) in shared.items()),
        *(
            f"No pair of the baseline's: {text(cell)} began with another accuracy."
            for cell in items(bench.get("unpaired", []))
        ),
    ]


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
        "ratios": mapped(found.get("cost_ratios"), _ratio),
    }


def _ratio(row: Any) -> Record:
    """A ratio's value and the ends of its interval are None where they are infinite."""
    found = _asis(row)
    costs = {name: found[name] for name in _COSTS if isinstance(found.get(name), dict)}
    return {
        **{
            name: {
                "value": number(cost.get("value")),
                "ci95": numbers(cost["ci95"], 2) if isinstance(cost.get("ci95"), list) else None,
            }
            for name, cost in costs.items()
        },
        "pairs": number(found.get("pairs")),
        "reached": numbers(found.get("reached"), 2),
    }


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
        "pending": number(found.get("pending")) or 0,
        "edges": [text(edge) for edge in items(found.get("edges"))],
        "candidates": [
            {"settings": _asis(c.get("settings")), "score": number(c.get("score"))}
            for c in items(found.get("candidates"))
            if isinstance(c, dict)
        ],
    }
