"""The tables of ``bench.json`` for people: text, Markdown and CSV."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from gcpo.experiment.bench.curves import COSTS

Bench = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows under a head; an estimate is a mapping with ``value`` and ``ci95``.

    Attributes:
        name: File name of its CSV.
        title: What it shows.
        head: Names of columns.
        rows: Cells.
        shares: Columns that are shares of 1, shown in per cent.
    """

    name: str
    title: str
    head: tuple[str, ...]
    rows: list[list[Any]]
    shares: tuple[str, ...] = ()


def tables(bench: Bench) -> list[Table]:
    """Everything but the curves."""
    baseline = bench["plan"]["baseline"]
    return [
        _scores(bench),
        *(
            Table(
                f"comparisons_{score}",
                f"{what} against {baseline}, paired by seed",
                ("recipe", "pairs", "difference", "P(improvement)", "better", "worse", "p", "p (Holm)"),
                [[name, *_compared(row)] for name, row in bench["comparisons"][score].items()],
                ("difference", "P(improvement)"),
            )
            for score, what in (("final", "Final accuracy"), ("area", "Area under the curve"))
        ),
        _problems(bench),
        _targets(bench),
    ]


def _scores(bench: Bench) -> Table:
    columns = [(score, how) for score in ("final", "area") for how in ("iqm", "mean")]
    head = tuple(f"{score} {how}" for score, how in columns)
    rows = [
        [name, row["final"]["runs"], *(row[score].get(how) for score, how in columns)]
        for name, row in bench["scores"].items()
    ]
    title = f"Accuracy on held-out prompts, {_scored(bench)}"
    if any(row["final"]["runs"] < 4 for row in bench["scores"].values()):
        title += "; the IQM of fewer than 4 runs is their mean"
    return Table("scores", title, ("recipe", "runs", *head), rows, head)


def _scored(bench: Bench) -> str:
    """What the scores are over; a problem on which a recipe has no run would compare different things."""
    left_out = [name for name in bench["problems"] if name not in bench["scored"]]
    if not left_out:
        return "all problems"
    return f"{len(bench['scored'])} of {len(bench['problems'])} problems; without a run of each: {', '.join(left_out)}"


def _compared(row: Mapping[str, Any]) -> list[Any]:
    names = ("pairs", "difference", "probability_of_improvement", "better", "worse", "p", "p_holm")
    return [row[name] for name in names]


def _problems(bench: Bench) -> Table:
    rows = []
    for problem, found in bench["problems"].items():
        for recipe, row in found["recipes"].items():
            against = found["comparisons"]["final"].get(recipe, {})
            tuned = bench["tuning"][problem][recipe]
            rows.append(
                [
                    problem,
                    recipe,
                    ", ".join(
                        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                        for key, value in (tuned["chosen"] or {}).items()
                    ),
                    ", ".join(tuned["edges"]),
                    len(row["runs"]),
                    row["final"],
                    row["area"],
                    against.get("difference"),
                    against.get("p_holm"),
                ]
            )
    head = ("problem", "recipe", "chosen", "edge of grid", "runs", "final", "area", "difference", "p (Holm)")
    return Table("problems", "Each task and model", head, rows, ("final", "area", "difference"))


def _targets(bench: Bench) -> Table:
    rows = []
    for problem, found in bench["problems"].items():
        for recipe, row in found["recipes"].items():
            if (to := row["to_target"]) is None:
                continue
            ratio = found["cost_ratios"].get(recipe, {})
            reached = f"{to['reached']} of {to['reached'] + to['censored']}"
            costs = [to["median"][name] for name in COSTS]
            paired = "{} and {} of {}".format(*ratio["reached"], ratio["pairs"]) if ratio else None
            ratios = [ratio.get(name) for name in COSTS]
            rows.append([problem, found["target"], recipe, reached, *costs, *ratios, paired])
    head = (*COSTS, *(f"{name} ratio" for name in COSTS), "pairs: reached")
    title = (
        "Cost to the target: median over runs, and ratio of the mean curves to the baseline's; of the pairs, how many "
        "of the recipe's runs and of the baseline's reached it"
    )
    return Table("to_target", title, ("problem", "target", "recipe", "reached", *head), rows, ("target",))


def _curves(bench: Bench) -> Table:
    rows = [
        [problem, recipe, *point]
        for problem, found in bench["problems"].items()
        for recipe, row in found["recipes"].items()
        for point in _points(row["curve"])
    ]
    return Table("curves", "Mean curves", ("problem", "recipe", *COSTS, "accuracy"), rows)


def _points(curve: Mapping[str, Any]) -> Iterator[list[Any]]:
    for i, (accuracy, ci95) in enumerate(zip(curve["accuracy"], curve["ci95"], strict=True)):
        yield [*(curve[name][i] for name in COSTS), {"value": accuracy, "ci95": ci95}]


def text(table: Table) -> str:
    """Columns side by side."""
    lines = [table.head, *(_shown(table, row) for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([table.title, *(f"  {line}" for line in body)])


def markdown(table: Table) -> str:
    """A Markdown table under its title."""
    lines = [table.head, ["---"] * len(table.head), *(_shown(table, row) for row in table.rows)]
    return "\n".join([f"## {table.title}", "", *("| " + " | ".join(line) + " |" for line in lines), ""])


def _shown(table: Table, row: list[Any]) -> list[str]:
    return [_cell(value, name in table.shares) for name, value in zip(table.head, row, strict=True)]


def _cell(value: Any, share: bool) -> str:
    if isinstance(value, Mapping):
        middle, *ends = ("∞" if number is None else _cell(number, share) for number in _numbers(value))
        return f"{middle} ({' to '.join(ends)})" if ends else middle
    if isinstance(value, float):
        return f"{100 * value:.1f}" if share else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return "-" if value in (None, "") else str(value).replace("|", "\\|")


def export(bench: Bench, directory: Path) -> None:
    """Write ``bench.md`` and a CSV file a table, with the ends of intervals in columns of their own."""
    directory.mkdir(parents=True, exist_ok=True)
    shown = tables(bench)
    (directory / "bench.md").write_text("\n".join(map(markdown, shown)), encoding="utf-8")
    for table in (*shown, _curves(bench)):
        with (directory / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            wide = [
                name for i, name in enumerate(table.head) if any(isinstance(row[i], Mapping) for row in table.rows)
            ]
            writer.writerow([out for name in table.head for out in (name, *_ends(name, wide))])
            writer.writerows(
                [out for name, value in zip(table.head, row, strict=True) for out in _flat(value, name in wide)]
                for row in table.rows
            )


def _ends(name: str, wide: list[str]) -> list[str]:
    return [f"{name} low", f"{name} high"] if name in wide else []


def _flat(value: Any, wide: bool) -> list[Any]:
    if not wide:
        return [value]
    if not isinstance(value, Mapping):
        return [value, None, None]
    numbers = [inf if number is None else number for number in _numbers(value)]
    return [*numbers, None, None][:3]


def _numbers(estimate: Mapping[str, Any]) -> list[float | None]:
    """An estimate's value and the ends of its interval, if it has one; None stands for infinity."""
    return [estimate["value"], *(estimate["ci95"] or ())]
