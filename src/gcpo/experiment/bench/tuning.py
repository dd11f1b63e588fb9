"""Each recipe's own learning rate, by one rule for all.

    chosen = argmax over candidates of the mean over tuning seeds of the area under the accuracy curve, or of the final
    accuracy, as the plan's rule says; of equals the first, which has the smaller learning rate

A candidate one of whose runs failed is out. Nothing is chosen before every run has ended. Where the chosen learning
rate ends its grid, a better one may lie beyond: the grid goes on there by its own ratio, as often as ``widen`` of the
plan allows, and the recipe chooses anew. ``edges`` names settings that end their grid still.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gcpo.experiment.bench.curves import Curve
from gcpo.experiment.bench.plan import Cell, Entry, Plan, Problem

Chosen = dict[str, dict[str, dict[str, Any]]]
"""What ``choose`` found, by problem and recipe."""


def choices(plan: Plan, curve: Callable[[Cell], Curve | None], failed: Callable[[Cell], bool]) -> Chosen:
    """What each recipe trains with on each problem."""
    return {
        problem.name: {recipe.name: choose(plan, problem, recipe, curve, failed) for recipe in plan.recipes}
        for problem in plan.problems
    }


def tuning_cells(plan: Plan, chosen: Chosen) -> list[Cell]:
    """Runs on the tuning seeds of all that is chosen from; what is compared stands together."""
    return [
        plan.cell(problem, recipe, row["settings"], seed)
        for problem in plan.problems
        for seed in plan.tuning_seeds
        for recipe in plan.recipes
        for row in chosen[problem.name][recipe.name]["candidates"]
    ]


def choose(
    plan: Plan,
    problem: Problem,
    recipe: Entry,
    curve: Callable[[Cell], Curve | None],
    failed: Callable[[Cell], bool],
) -> dict[str, Any]:
    """What a recipe trains with on a problem.

    Args:
        plan: The bench.
        problem: A task and a model.
        recipe: A recipe.
        curve: The curve of a cell; None if its run is not finished.
        failed: Whether it failed.

    Returns:
        ``candidates``, each with its ``settings`` and its mean ``score`` (None if a run is not finished; none without
        a choice), how many runs are ``pending``, the ``chosen`` settings (None if all failed or some are pending), and
        their ``edges``.
    """
    below = above = 0
    while True:
        found = _best(plan, problem, recipe, plan.candidates(problem, recipe, below, above), curve, failed)
        rates, rate = plan.rates(problem, below, above), (found["chosen"] or {}).get("learning_rate")
        if len(rates) == 1 or rate not in (rates[0], rates[-1]) or below + above == plan.widen:
            return found
        below, above = below + (rate == rates[0]), above + (rate == rates[-1])


def _best(
    plan: Plan,
    problem: Problem,
    recipe: Entry,
    candidates: list[dict[str, Any]],
    curve: Callable[[Cell], Curve | None],
    failed: Callable[[Cell], bool],
) -> dict[str, Any]:
    """The best of these candidates."""
    if len(candidates) == 1:
        return {"candidates": [], "pending": 0, "chosen": candidates[0], "edges": []}
    rows: list[dict[str, Any]] = []
    pending = 0
    for candidate in candidates:
        cells = [plan.cell(problem, recipe, candidate, seed) for seed in plan.tuning_seeds]
        curves = [curve(cell) for cell in cells]
        pending += sum(c is None and not failed(cell) for c, cell in zip(curves, cells, strict=True))
        scores = [getattr(c, plan.rule) for c in curves if c is not None]
        rows.append({"settings": candidate, "score": float(np.mean(scores)) if len(scores) == len(curves) else None})
    whole = [row for row in rows if row["score"] is not None and not pending]
    best = max(whole, key=lambda row: row["score"], default=None)  # of equals the first
    chosen = None if best is None else best["settings"]
    return {"candidates": rows, "pending": pending, "chosen": chosen, "edges": _edges(candidates, chosen or {})}


def _edges(candidates: list[dict[str, Any]], chosen: dict[str, Any]) -> list[str]:
    """Settings whose chosen value, a number, ends its grid."""
    numbers = [key for key, value in chosen.items() if type(value) in (int, float)]
    grids = {key: [candidate[key] for candidate in candidates] for key in numbers}
    return [key for key, grid in grids.items() if len(set(grid)) > 1 and chosen[key] in (min(grid), max(grid))]
