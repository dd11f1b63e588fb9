"""``gcpo bench``: tune, run what is reported, summarise."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gcpo import report
from gcpo.experiment.bench.curves import Curve
from gcpo.experiment.bench.kept import Kept
from gcpo.experiment.bench.live import Live
from gcpo.experiment.bench.plan import Cell, Plan
from gcpo.experiment.bench.run import Runner
from gcpo.experiment.bench.summary import summarise
from gcpo.experiment.bench.tuning import Chosen, choices, tuning_cells
from gcpo.experiment.rundir import plain, write_whole, writing
from gcpo.experiment.settings import TrainSettings, UsageError
from gcpo.experiment.subject import build_task, draw, versions
from gcpo.experiment.train import build_config


def bench(plan: Plan, output: Path, jobs: int | None = None, runs: Path | None = None) -> dict[str, Any]:
    """Run what is left of a bench and write ``bench.json``.

    Args:
        plan: What is compared.
        output: Directory of the bench.
        jobs: Runs at a time; None: one a core, or one where there is a GPU.
        runs: File of finished runs: those in it are not run again, those that end are added.

    Returns:
        What ``bench.json`` holds; its page is ``report.html``. Of a bench that Ctrl-C stopped, what there is.

    Raises:
        UsageError: The plan cannot be carried out, or the directory cannot be written, or it or the
            file holds cells of other settings; nothing was run.
        RunError: The disk is full; the same command goes on.
    """
    jobs = jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    runner = Runner(output / "cells", jobs, kept=None if runs is None else Kept(runs))
    _check(plan, output, runner)
    shared = _shared_prompts(plan, tuning_cells(plan, _chosen(plan, runner)))
    try:
        runner.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the output {output} cannot be written ({error.strerror}): choose another.") from error
    interrupted = False
    try:
        _tune(plan, runner)
        _run(runner, _reported(plan, _chosen(plan, runner)), "report")
    except KeyboardInterrupt:
        interrupted = True
    result: dict[str, Any] = plain(_result(plan, runner, interrupted) | {"shared_prompts": shared})
    for cell in result["unpaired"]:
        print(
            f"{cell} began with another accuracy than the baseline's run of its seed, so is no pair", file=sys.stderr
        )
    write_whole(output / "bench.json", json.dumps(result, indent=1) + "\n")
    with writing(output / "report.html"):
        report.build(output)
    return result


def _tune(plan: Plan, runner: Runner) -> None:
    """Run what each recipe chooses by, anew as long as that has widened a grid."""
    cells = None
    while (wanted := tuning_cells(plan, _chosen(plan, runner))) != cells:
        _run(runner, cells := wanted, "tuning")


def _chosen(plan: Plan, runner: Runner) -> Chosen:
    return choices(plan, runner.curve, runner.has_failed)


def _reported(plan: Plan, chosen: Chosen) -> list[Cell]:
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
    tuning, reported = tuning_cells(plan, chosen), _reported(plan, chosen)
    return {
        "status": "interrupted" if interrupted else "failed" if runner.failed else "finished",
        "cells": len(tuning) + len(plan.problems) * len(plan.seeds) * len(plan.recipes),
        "finished": sum(runner.curve(cell) is not None for cell in tuning + reported),
        "failed": runner.failed,
        "plan": _told(plan),
        "versions": versions(),
        "run_with": runner.versions(tuning + reported),
        "tuning": chosen,
        **summarise(plan, _table(plan, reported, runner.curve)),
    }


def _check(plan: Plan, output: Path, runner: Runner) -> None:
    """Refuse what cannot work before the first run."""
    cells = list(plan.every_cell())
    # Of a candidate's runs, which differ in their seeds, one; a rate beyond the grid is built as those in it are.
    apart = {c.directory.parent: c for c in cells if c.candidate["learning_rate"] in plan.rates(c.problem)}
    for cell in apart.values():
        settings = cell.settings
        try:
            build_config(settings, build_task(settings), output)
        except UsageError as error:
            raise UsageError(f"{cell.recipe.name} on {cell.problem.name}: {error}") from error
    runner.check(cells)


def _shared_prompts(plan: Plan, tuning: list[Cell]) -> dict[str, dict[str, int]]:
    """How many held-out prompts of the reported runs the tuning runs have too, by problem; told where there are any.

    Data may hold fewer than both need.
    """
    found = {}
    for problem, cell in {cell.problem.name: cell for cell in tuning}.items():
        reported = plan.cell(cell.problem, cell.recipe, cell.candidate, plan.seeds[0])
        first, second = _held_out(cell.settings), _held_out(reported.settings)
        if both := len(first & second):
            found[problem] = {"shared": both, "of": len(second)}
            print(f"{problem}: {both} of {len(second)} held-out prompts are also those of tuning", file=sys.stderr)
    return found


def _held_out(settings: TrainSettings) -> set[str]:
    return {e.prompt for e in draw(build_task(settings), "test", settings.eval_prompts, settings.eval_seed)}


def _run(runner: Runner, cells: list[Cell], phase: str) -> None:
    """Run those cells that are not finished."""
    finished = [cell for cell in cells if runner.curve(cell) is not None]
    for cell in finished:
        runner.keep(cell)
    live = Live(phase, cells, finished)
    try:
        runner.run(
            [cell for cell in cells if cell not in finished and not runner.has_failed(cell)],
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
        "widen": plan.widen,
        "settings": dict(plan.settings),
        **{
            kind: {entry.name: entry.settings for entry in getattr(plan, kind)}
            for kind in ("tasks", "models", "recipes")
        },
    }
