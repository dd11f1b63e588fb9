"""``gcpo bench``: tune, run what is reported, summarise."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gcpo import report
from gcpo.experiment.bench.curves import Curve
from gcpo.experiment.bench.live import Live
from gcpo.experiment.bench.plan import Cell, Plan
from gcpo.experiment.bench.run import Runner
from gcpo.experiment.bench.summary import summarise
from gcpo.experiment.bench.tuning import choose
from gcpo.experiment.rundir import plain
from gcpo.experiment.settings import RunError, UsageError
from gcpo.experiment.subject import build_task, versions
from gcpo.experiment.train import build_config


def bench(plan: Plan, output: Path, jobs: int | None = None) -> dict[str, Any]:
    """Run what is left of a bench and write ``bench.json``.

    Args:
        plan: What is compared.
        output: Directory of the bench.
        jobs: Runs at a time; None: one a core, or one where there is a GPU.

    Returns:
        What ``bench.json`` holds; its page is ``report.html``. Of a bench that Ctrl-C stopped, what there is.

    Raises:
        UsageError: The plan cannot be carried out, or the directory holds cells of other settings; nothing was run.
        RunError: The disk is full or not writable; what was finished is kept.
    """
    jobs = jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    runner = Runner(output / "cells", jobs)
    _check(plan, output, runner)
    interrupted = False
    try:
        try:
            _run(runner, plan.tuning_cells(), "tuning")
            _run(runner, _reported(plan, _chosen(plan, runner)), "report")
        except KeyboardInterrupt:
            interrupted = True
        result: dict[str, Any] = plain(_result(plan, runner, interrupted))
        _write(output / "bench.json", json.dumps(result, indent=1) + "\n")
        report.build(output)
    except OSError as error:
        raise RunError(
            f"{error.filename or output} cannot be written ({error.strerror or error}): make room or make it "
            "writable, then give the same command again, which goes on with what is left."
        ) from error
    return result


def _chosen(plan: Plan, runner: Runner) -> dict[str, dict[str, dict[str, Any]]]:
    """What each recipe trains with, by problem; nothing is chosen before all of its tuning has ended."""
    chosen = {
        problem.name: {recipe.name: choose(plan, problem, recipe, runner.curve) for recipe in plan.recipes}
        for problem in plan.problems
    }
    for cell in plan.tuning_cells():
        if runner.curve(cell) is None and str(cell.directory) not in runner.failed:
            chosen[cell.problem.name][cell.recipe.name] |= {"chosen": None, "edges": []}
    return chosen


def _reported(plan: Plan, chosen: dict[str, dict[str, dict[str, Any]]]) -> list[Cell]:
    """Runs on the seeds that are reported, of recipes that could choose."""
    return [
        plan.cell(problem, recipe, settings, seed)
        for problem in plan.problems
        for seed in plan.seeds  # those of one seed side by side, so that what else runs here slows all alike
        for recipe in plan.recipes
        if (settings := chosen[problem.name][recipe.name]["chosen"]) is not None
    ]


def _result(plan: Plan, runner: Runner, interrupted: bool) -> dict[str, Any]:
    """What ``bench.json`` holds, of the cells that are finished."""
    chosen = _chosen(plan, runner)
    tuning, reported = plan.tuning_cells(), _reported(plan, chosen)
    return {
        "status": "interrupted" if interrupted else "failed" if runner.failed else "finished",
        "cells": len(tuning) + len(plan.problems) * len(plan.seeds) * len(plan.recipes),
        "finished": sum(runner.curve(cell) is not None for cell in tuning + reported),
        "failed": runner.failed,
        "plan": _told(plan),
        "versions": versions(),
        "tuning": chosen,
        **summarise(plan, _table(plan, reported, runner.curve)),
    }


def _check(plan: Plan, output: Path, runner: Runner) -> None:
    """Refuse what cannot work before the first run."""
    cells = list(plan.every_cell())
    seen = set()
    for cell in cells:
        kind = cell.directory.parent  # seeds differ in nothing that is checked
        if kind not in seen:
            seen.add(kind)
            settings = cell.settings
            try:
                build_config(settings, build_task(settings), output)
            except UsageError as error:
                raise UsageError(f"{cell.recipe.name} on {cell.problem.name}: {error}") from error
    runner.check(cells)


def _run(runner: Runner, cells: list[Cell], phase: str) -> None:
    """Run those cells that are not finished."""
    finished = [cell for cell in cells if runner.curve(cell) is not None]
    live = Live(phase, cells, finished)
    try:
        runner.run(
            [cell for cell in cells if cell not in finished],
            lambda cell, curve: live.told(cell, curve, runner.failed.get(str(cell.directory))),
        )
    finally:
        live.close()


def _table(
    plan: Plan, cells: list[Cell], curve: Callable[[Cell], Curve | None]
) -> dict[str, dict[str, dict[int, Curve]]]:
    table: dict[str, dict[str, dict[int, Curve]]] = {
        problem.name: {recipe.name: {} for recipe in plan.recipes} for problem in plan.problems
    }
    for cell in cells:
        if (found := curve(cell)) is not None:
            table[cell.problem.name][cell.recipe.name][cell.seed] = found
    return table


def _told(plan: Plan) -> dict[str, Any]:
    """The plan in plain values."""
    return {
        "baseline": plan.baseline,
        "rule": plan.rule,
        "seeds": list(plan.seeds),
        "tuning_seeds": list(plan.tuning_seeds),
        "learning_rates": list(plan.learning_rates),
        "settings": dict(plan.settings),
        **{
            kind: {entry.name: entry.settings for entry in getattr(plan, kind)}
            for kind in ("tasks", "models", "recipes")
        },
    }


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)
