"""What a bench compares, read from a TOML file; docs/bench.md has the keys.

    learning_rates = [1e-4, 2e-4]        [[task]]             [[recipe]]
    tuning_seeds = [100, 101]            task = "chain"       recipe = "seed-grpo"
    seeds = [0, 1, 2]                    reward_noise = 0.2   tune = {gcpo_alpha = [0.04, 1.0]}

Tables hold settings of ``gcpo train``; of a cell's they hold in this order: the file's own, its model's, its task's,
its recipe's, then the candidate's (learning rate and what else is tuned) and the seed. No heavy import here.
"""

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gcpo.experiment.resolve import resolve, suggest
from gcpo.experiment.settings import TaskSettings, TrainSettings, UsageError

Value = int | float | bool | str

_SHORT = {
    "steps": "max_steps",
    "eval_every": "eval_every",
    "eval_prompts": "eval_prompts",
    "eval_samples": "eval_samples",
}
# What a comparison pays for nothing, and the bench sees to the page.
_SETTINGS: dict[str, Any] = {
    "gcpo_log_signals": [],
    "gcpo_watch_gradients": False,
    "report": False,
    "logging_steps": 1,
}
_OURS = ("seed", "learning_rate", "logging_steps", "report", "num_train_epochs", "output_dir")
# What is learned by whom, and how it is judged, a recipe may not say: its runs would be no pairs of the others.
_PROBLEMS = {each.name for each in fields(TaskSettings)} - {"signals"}
_PROBLEMS |= {"reward_noise", "eval_seed", "eval_prompts", "eval_samples"}


@dataclass(frozen=True)
class Entry:
    """A task, a model or a recipe of a bench.

    Attributes:
        name: What it is called in tables and directories.
        settings: Of ``gcpo train``.
        learning_rates: A model's own grid; empty: the file's.
        tune: Further settings of a recipe to choose as its learning rate is, with their values.
        target: A task's own target accuracy; None: the baseline's final one.
    """

    name: str
    settings: dict[str, Any]
    learning_rates: tuple[float, ...] = ()
    tune: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    target: float | None = None


@dataclass(frozen=True)
class Problem:
    """A task for a model: what a learning rate is chosen for, and a stratum of the statistics."""

    task: Entry
    model: Entry

    @property
    def name(self) -> str:
        """``TASK/MODEL``."""
        return f"{self.task.name}/{self.model.name}"


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        problem: What is learned by whom.
        recipe: How.
        candidate: What is tuned: the learning rate, and the recipe's further settings.
        seed: Of prompts, sampling and data order.
        common: Settings of all cells.
        tuning: Whether something is chosen by it; then it is evaluated on other held-out prompts.
    """

    problem: Problem
    recipe: Entry
    candidate: Mapping[str, Value]
    seed: int
    common: Mapping[str, Any]
    tuning: bool = False

    @property
    def directory(self) -> Path:
        """Where its run directory is, in the bench's ``cells``."""
        words = [f"{key.removeprefix('gcpo_')}={value}" for key, value in self.candidate.items()]
        words[0] = f"lr={float(self.candidate['learning_rate'])}"
        return Path(self.problem.name, self.recipe.name, ",".join(words), f"seed={self.seed}")

    @property
    def settings(self) -> TrainSettings:
        """What ``gcpo train`` is told.

        Raises:
            UsageError: There is no such setting, or a value does not fit.
        """
        told = {
            **self.common,
            **self.problem.model.settings,
            **self.problem.task.settings,
            **self.recipe.settings,
            **self.candidate,
            "seed": self.seed,
        }
        try:
            settings = resolve(TrainSettings, told)
        except UsageError as error:
            raise UsageError(f"{self.recipe.name} on {self.problem.name}: {error}") from error
        return replace(settings, eval_seed=settings.eval_seed + self.tuning)

    def same(self, found: Mapping[str, Any], where: Path | str, choose: str) -> None:
        """Refuse a finished run of other settings.

        Raises:
            UsageError: Those found in ``where`` differ; ``choose`` is what to choose another of.
        """
        told = self.settings.as_dict()
        if other := [key for key in told if found.get(key) != told[key]]:
            raise UsageError(
                f"{where} was run with another {other[0]} ({found.get(other[0])!r}, not {told[other[0]]!r}): choose "
                f"another {choose}."
            )


@dataclass(frozen=True)
class Plan:
    """A whole bench.

    Attributes:
        tasks: Tasks.
        models: Policies to start from.
        recipes: What is compared.
        learning_rates: The grid all recipes choose from.
        widen: How many times the grid may go on where a recipe chose its end.
        tuning_seeds: Seeds by which they choose; none is among ``seeds``.
        seeds: Seeds that are reported.
        rule: What they choose by: ``area`` under the accuracy curve, or ``final`` accuracy.
        baseline: Name of the recipe the others are compared with.
        settings: Of all cells.
    """

    tasks: tuple[Entry, ...]
    recipes: tuple[Entry, ...]
    models: tuple[Entry, ...] = (Entry("starter", {"model": "starter"}),)
    learning_rates: tuple[float, ...] = (2e-4,)
    tuning_seeds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    widen: int = 0
    rule: str = "area"
    baseline: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in ("tasks", "recipes", "models"):
            names = [entry.name for entry in getattr(self, kind)]
            if not names:
                raise UsageError(f"a bench needs {kind}, found none: add a table [[{kind[:-1]}]].")
            if twice := [name for name in names if names.count(name) > 1]:
                raise UsageError(f"{kind} need names that differ, found {twice[0]!r} twice: give one a name.")
        if both := set(self.seeds) & set(self.tuning_seeds):
            raise UsageError(f"tuning_seeds must not be among seeds, found {min(both)} in both.")
        if not self.seeds or not self.learning_rates:
            raise UsageError("seeds and learning_rates must not be empty: give at least one of each.")
        if self.rule not in ("area", "final"):
            raise UsageError(f"rule must be area or final, found {self.rule!r}.")
        if self.widen < 0:
            raise UsageError(f"widen must be 0 or more, found {self.widen}.")
        known = [recipe.name for recipe in self.recipes]
        if self.baseline not in known:
            raise UsageError(f"baseline must be one of the recipes {', '.join(known)}, found {self.baseline!r}.")
        tuned = [p.name for p in self.problems for r in self.recipes if len(self.candidates(p, r)) > 1]
        if tuned and not self.tuning_seeds:
            raise UsageError(f"{tuned[0]} has several learning rates to choose from: give tuning_seeds to do so.")

    @property
    def problems(self) -> list[Problem]:
        """Tasks x models."""
        return [Problem(task, model) for model in self.models for task in self.tasks]

    def rates(self, problem: Problem, below: int = 0, above: int = 0) -> list[float]:
        """A problem's grid, ascending, gone on so many times below and above by the ratio of the two rates there."""
        grid = sorted(problem.model.learning_rates or self.learning_rates)
        if len(grid) > 1:
            grid = [
                *(_round(grid[0] * (grid[0] / grid[1]) ** k) for k in range(below, 0, -1)),
                *grid,
                *(_round(grid[-1] * (grid[-1] / grid[-2]) ** k) for k in range(1, above + 1)),
            ]
        return grid

    def candidates(self, problem: Problem, recipe: Entry, below: int = 0, above: int = 0) -> list[dict[str, Value]]:
        """What a recipe chooses from: learning rates x what else it tunes, the smaller first."""
        rates = self.rates(problem, below, above)
        grids: list[list[tuple[str, Value]]] = [[("learning_rate", rate) for rate in rates]]
        grids += [[(name, value) for value in sorted(values)] for name, values in recipe.tune.items()]
        return [dict(choice) for choice in itertools.product(*grids)]

    def cell(self, problem: Problem, recipe: Entry, candidate: Mapping[str, Value], seed: int) -> Cell:
        """One of them."""
        return Cell(problem, recipe, candidate, seed, self.common, seed in self.tuning_seeds)

    @property
    def common(self) -> dict[str, Any]:
        """Settings of all cells, with our own."""
        return _SETTINGS | dict(self.settings)

    def every_cell(self) -> Iterator[Cell]:
        """All that may run, whatever is chosen."""
        seeds = (*self.tuning_seeds, *self.seeds)
        for problem, recipe in itertools.product(self.problems, self.recipes):
            for candidate, seed in itertools.product(self.candidates(problem, recipe, self.widen, self.widen), seeds):
                yield self.cell(problem, recipe, candidate, seed)


def _round(rate: float) -> float:
    """Without the noise of the last digits: 5e-5, not 5.000000000000001e-05, is what a file of runs has."""
    return float(f"{rate:.6g}")


def read(path: Path) -> Plan:
    """The plan in a TOML file.

    Raises:
        UsageError: It cannot be read, or holds what no bench has.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the bench {path} cannot be read: {error}.") from error
    try:
        return parse(content)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


_LISTS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "learning_rates": ("positive numbers", (int, float)),
    "tuning_seeds": ("whole numbers", int),
    "seeds": ("whole numbers", int),
}
_KEYS = (*_SHORT, *_LISTS, "widen", "rule", "baseline", "settings", "task", "model", "recipe")


def parse(content: Mapping[str, Any]) -> Plan:
    """The plan of a file's content."""
    _no_other(content, _KEYS, "a bench")
    given: dict[str, Any] = {key: _list(key, content[key]) for key in _LISTS if key in content}
    if "widen" in content and type(content["widen"]) is not int:
        raise UsageError(f"widen must be a whole number, found {content['widen']!r}.")
    given |= {key: content[key] for key in ("widen", "rule", "baseline") if key in content}
    for kind in ("task", "model", "recipe"):
        if kind in content:
            given[f"{kind}s"] = tuple(_entry(kind, table) for table in _tables(kind, content[kind]))
    given.setdefault("tasks", ())
    given.setdefault("recipes", ())
    given.setdefault("baseline", given["recipes"][0].name if given["recipes"] else "")
    settings = _settings(content.get("settings", {}), "settings")
    short = {_SHORT[key]: content[key] for key in _SHORT if key in content}
    return Plan(**given, settings=settings | short)


def _entry(kind: str, table: Mapping[str, Any]) -> Entry:
    own = {"task": ("target",), "model": ("learning_rates",), "recipe": ("tune",)}[kind]
    settings = {k: v for k, v in table.items() if k not in ("name", *own)}
    if kind not in settings and "name" not in table:
        raise UsageError(f"a table [[{kind}]] must have {kind} or name, found {', '.join(table) or 'nothing'}.")
    name = str(table.get("name", Path(str(settings.get(kind))).name))
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UsageError(
            f"names begin with a letter, digit or _ and may have . + - behind, found {name!r} of a {kind}: give one."
        )
    entry = Entry(name, _settings(settings, f"{kind} {name!r}"))
    if "learning_rates" in table and kind == "model":
        entry = replace(entry, learning_rates=_list("learning_rates", table["learning_rates"]))
    if "tune" in table and kind == "recipe":
        entry = replace(entry, tune=_grids(name, table["tune"]))
    if "target" in table and kind == "task":
        if type(table["target"]) not in (int, float):
            raise UsageError(f"target of task {name!r} must be an accuracy, found {table['target']!r}.")
        entry = replace(entry, target=float(table["target"]))
    if kind == "recipe":
        _paired(entry)
    return entry


def _paired(recipe: Entry) -> None:
    """Refuse a recipe whose runs would be no pairs of the others'."""
    if theirs := [key for key in (*recipe.settings, *recipe.tune) if key in _PROBLEMS]:
        raise UsageError(
            f"recipe {recipe.name!r} sets {theirs[0]}, which is to be the same for all recipes: set it in a task, a "
            "model or [settings]."
        )


def _grids(name: str, tune: Any) -> dict[str, tuple[Value, ...]]:
    if not isinstance(tune, Mapping) or not all(isinstance(values, list) and values for values in tune.values()):
        raise UsageError(f"tune of recipe {name!r} must map settings to lists of values, found {tune!r}.")
    _settings(tune, f"tune of recipe {name!r}")
    for key, values in tune.items():
        alike = any(all(type(value) in kinds for value in values) for kinds in ((int, float), (bool,), (str,)))
        if not alike or len(set(values)) < len(values):
            raise UsageError(
                f"tune of recipe {name!r} must give {key} different numbers, different words, or true and false, "
                f"found {values!r}."
            )
    return {key: tuple(values) for key, values in tune.items()}


def _settings(settings: Any, of: str) -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        raise UsageError(f"{of} must be a table of settings, found {settings!r}.")
    if taken := [key for key in settings if key in _OURS]:
        raise UsageError(f"{of} sets {taken[0]}, which the bench sets itself: leave it out.")
    return dict(settings)


def _tables(kind: str, value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UsageError(f"{kind} must be tables, found {value!r}: write [[{kind}]].")
    return value


def _list(key: str, value: Any) -> tuple[Any, ...]:
    said, kind = _LISTS[key]
    fits = isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)
    if not fits or (key == "learning_rates" and not all(v > 0 for v in value)) or len(set(value)) < len(value):
        raise UsageError(f"{key} must be a list of different {said}, found {value!r}.")
    return tuple(value)


def _no_other(table: Mapping[str, Any], known: tuple[str, ...], of: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{of} has no key {key!r}{suggest(key, known) or ': it has ' + ', '.join(known) + '.'}")


__all__ = ["Cell", "Entry", "Plan", "Problem", "parse", "read"]
