"""Curves of the reported seeds as tables: what ``bench.json`` holds.

    scores        final accuracy and area under the curve of each recipe: IQM and mean over the problems on which every
                  recipe has a run
    comparisons   each recipe with the baseline: paired differences, probability of improvement, p by flipping the
                  signs of the differences by seed, adjusted by Holm over all recipes
    problems      the same for one task and model, adjusted by Holm over its recipes; the mean curve, and what it costs
                  to reach the target
    unpaired      runs of one seed that begin with another accuracy than the baseline's, and so are no pair of it

The target is the baseline's mean final accuracy, or the task's own. A run reaches it where the line through its
evaluations first does; one that never does is censored: counted, and beyond every other in the median. The cost ratio
is of the mean curves over the seeds both have, in every resample with the target of that resample: infinite where the
recipe alone does not reach it, 0 where the baseline alone does not, and undefined, so left out, where neither does.
JSON has no infinity: ``value`` and the ends of ``ci95`` are null instead; a ratio that is undefined is null itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gcpo.experiment.bench.curves import COSTS, Curve
from gcpo.experiment.bench.estimators import Statistic, bootstrap, difference, holm, improvement, iqm, mean
from gcpo.experiment.bench.plan import Plan, Problem
from gcpo.experiment.statistics import sign_flips

Runs = Mapping[int, Curve]
"""Curves of one recipe on one problem, by seed."""
Table = Mapping[str, Mapping[str, Runs]]
"""By the names of problems, then of recipes."""
Side = tuple[Float[np.ndarray, "n T"], Mapping[str, Float[np.ndarray, "n T"]]]
"""Accuracies and costs of n paired runs of a recipe."""
SCORES = ("final", "area")
_RESAMPLES = 1000


def summarise(plan: Plan, table: Table) -> dict[str, Any]:
    """All tables of a bench.

    Args:
        plan: The bench.
        table: Curves of the reported seeds that are there; a recipe or problem may have none.
    """
    names = [r.name for r in plan.recipes if any(runs[r.name] for runs in table.values())]
    common = {problem: runs for problem, runs in table.items() if all(runs[name] for name in names)}
    return {
        "scores": {r.name: {score: _score(common, r.name, score) for score in SCORES} for r in plan.recipes},
        "scored": list(common),
        "comparisons": {score: _comparisons(plan, table.values(), score) for score in SCORES},
        "problems": {
            problem.name: _problem(plan, problem, table[problem.name])
            | {"comparisons": {score: _comparisons(plan, [table[problem.name]], score) for score in SCORES}}
            for problem in plan.problems
        },
        "unpaired": [
            f"{problem}/{name}/seed={seed}"
            for problem, runs in table.items()
            for name, curves in runs.items()
            for seed, curve in curves.items()
            if (base := runs[plan.baseline].get(seed)) is not None and base.accuracy[0] != curve.accuracy[0]
        ],
    }


def _problem(plan: Plan, problem: Problem, runs: Mapping[str, Runs]) -> dict[str, Any]:
    """One task and model."""
    base = runs[plan.baseline]
    finals = [curve.final for curve in base.values()]
    target = problem.task.target if problem.task.target is not None else float(np.mean(finals)) if finals else None
    others = {name: r for name, r in runs.items() if name != plan.baseline and set(r) & set(base)}
    return {
        "target": target,
        "recipes": {name: _recipe(curves, target) for name, curves in runs.items() if curves},
        "cost_ratios": {name: _ratio(curves, base, problem.task.target) for name, curves in others.items()},
    }


def _score(table: Table, recipe: str, score: str) -> dict[str, Any]:
    strata = [_column(runs[recipe], score) for runs in table.values() if runs[recipe]]
    if not strata:
        return {"runs": 0}
    return {"runs": sum(map(len, strata)), "iqm": bootstrap(strata, iqm), "mean": bootstrap(strata, mean)}


def _column(runs: Runs, score: str) -> Float[np.ndarray, "n 1"]:
    return np.array([[getattr(curve, score)] for curve in runs.values()])


def _comparisons(plan: Plan, problems: Iterable[Mapping[str, Runs]], score: str) -> dict[str, Any]:
    """Each recipe with the baseline, on the problems and seeds that both have; ``p_holm`` over the recipes."""
    found, by_problem = {}, list(problems)
    for recipe in (r.name for r in plan.recipes if r.name != plan.baseline):
        pairs = [_pairs(runs[recipe], runs[plan.baseline], score) for runs in by_problem]
        if strata := [pair for pair in pairs if len(pair)]:
            found[recipe] = comparison(strata)
    adjusted = holm([row["p"] for row in found.values()])
    return {name: row | {"p_holm": p} for (name, row), p in zip(found.items(), adjusted, strict=True)}


def _pairs(first: Runs, second: Runs, score: str) -> Float[np.ndarray, "n 2"]:
    both = [seed for seed in first if seed in second]
    return np.array([[getattr(first[s], score), getattr(second[s], score)] for s in both]).reshape(-1, 2)


def comparison(strata: Sequence[Float[np.ndarray, "n 2"]]) -> dict[str, Any]:
    """Pairs of a recipe and another, a stratum a problem: differences, probability of improvement, p."""
    statistics: dict[str, Statistic] = {"difference": difference, "probability_of_improvement": improvement}
    # Problems count alike, as in the mean over them that stands beside p.
    apart = np.concatenate([(stratum[:, 0] - stratum[:, 1]) / len(stratum) for stratum in strata])
    return {
        "pairs": len(apart),
        **{name: bootstrap(strata, statistic) for name, statistic in statistics.items()},
        "better": int((apart > 0).sum()),
        "worse": int((apart < 0).sum()),
        "p": sign_flips(apart),
    }


def _recipe(runs: Runs, target: float | None) -> dict[str, Any]:
    """One recipe on one problem."""
    return {
        "runs": {seed: {score: getattr(curve, score) for score in SCORES} for seed, curve in runs.items()},
        **{score: bootstrap([_column(runs, score)], mean) for score in SCORES},
        "curve": _mean_curve(runs),
        "to_target": None if target is None else _to_target(runs, target),
    }


def _mean_curve(runs: Runs) -> dict[str, Any]:
    """The mean accuracy of the seeds at each evaluation, with a band, and the mean costs."""
    accuracy = np.array([curve.accuracy for curve in runs.values()])
    band = [bootstrap([column[:, None]], mean)["ci95"] for column in accuracy.T]
    costs = {name: np.mean([curve.cost[name] for curve in runs.values()], 0).tolist() for name in COSTS}
    return {"accuracy": accuracy.mean(0).tolist(), "ci95": band, **costs}


def _to_target(runs: Runs, target: float) -> dict[str, Any]:
    """How many runs reach the target, and the median costs; None where half of them or more do not."""
    where = [crossing(curve.accuracy, target) for curve in runs.values()]
    costs = {
        name: [
            np.inf if w is None else _at(curve.cost[name], w) for w, curve in zip(where, runs.values(), strict=True)
        ]
        for name in COSTS
    }
    return {
        "reached": sum(w is not None for w in where),
        "censored": sum(w is None for w in where),
        "median": {name: _finite(np.median(values)) for name, values in costs.items()},
    }


def crossing(accuracy: Float[np.ndarray, " T"], target: float) -> float | None:
    """Index at which the line through the accuracies first reaches the target; None if it never does."""
    there = np.flatnonzero(accuracy >= target - 1e-9)  # a mean of equal numbers may be rounded up
    if not len(there):
        return None
    i = int(there[0])
    return 0.0 if i == 0 else i - 1 + min(1.0, float((target - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])))


def _at(cost: Float[np.ndarray, " T"], index: float) -> float:
    return float(np.interp(index, np.arange(len(cost)), cost))


def _ratio(first: Runs, base: Runs, fixed: float | None) -> dict[str, Any]:
    """Ratios of costs with intervals, and how many runs of each side reach the target.

    ``infinite`` and ``undefined`` are shares of resamples.
    """
    seeds = [seed for seed in first if seed in base]
    sides = [_stacked([runs[seed] for seed in seeds]) for runs in (first, base)]
    rng, whole = np.random.default_rng(0), np.arange(len(seeds))
    draws = rng.integers(len(seeds), size=(_RESAMPLES, len(seeds)))
    values, ratios = _costs_ratio(sides, whole, fixed), np.array([_costs_ratio(sides, rows, fixed) for rows in draws])
    defined = ratios[~np.isnan(ratios).any(1) & (len(seeds) > 1)]  # one pair has no interval
    target = _target(sides[1], whole, fixed)
    return {
        "pairs": len(seeds),
        "reached": [sum(crossing(a, target) is not None for a in accuracy) for accuracy, _ in sides],
        "infinite": float(np.isinf(ratios).any(1).mean()),
        "undefined": float(np.isnan(ratios).any(1).mean()),
        **{name: _open(*each) for name, *each in zip(COSTS, values, defined.T, strict=True)},
    }


def _open(value: float, resampled: Float[np.ndarray, " R"]) -> dict[str, Any] | None:
    """A ratio and its interval, null for infinity; None for a ratio that is undefined."""
    if np.isnan(value):
        return None
    ends = np.quantile(resampled, [0.025, 0.975], method="nearest") if len(resampled) else None
    return {"value": _finite(value), "ci95": None if ends is None else [_finite(end) for end in ends]}


def _stacked(curves: Sequence[Curve]) -> Side:
    return np.array([c.accuracy for c in curves]), {n: np.array([c.cost[n] for c in curves]) for n in COSTS}


def _target(base: Side, rows: np.ndarray, fixed: float | None) -> float:
    return float(base[0][rows, -1].mean()) if fixed is None else fixed


def _costs_ratio(sides: Sequence[Side], rows: np.ndarray, fixed: float | None) -> Float[np.ndarray, " costs"]:
    """The ratio of each cost for some of the seeds: inf, 0 or NaN where one or both mean curves miss the target."""
    target = _target(sides[1], rows, fixed)
    mine, theirs = (_spent(side, rows, target) for side in sides)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(mine / theirs)


def _spent(side: Side, rows: np.ndarray, target: float) -> Float[np.ndarray, " costs"]:
    """What the mean curve of some seeds costs until it reaches the target; infinite if it never does."""
    accuracy, costs = side
    where = crossing(accuracy[rows].mean(0), target)
    return np.array([np.inf if where is None else _at(costs[name][rows].mean(0), where) for name in COSTS])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
