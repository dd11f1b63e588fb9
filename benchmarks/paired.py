"""A recipe against each other one of several benches, paired by seed, where no single bench has both.

    python benchmarks/paired.py gcpo-32x4-twice benchmarks/results/study_*.json
    python benchmarks/paired.py gcpo-32x4-twice benchmarks/results/{study,wide}_*.json --against grpo grpo-32x4-twice
    python benchmarks/paired.py grpo benchmarks/results/{study,wide}_*.json --matrix

Where two files chose other settings for a recipe on a problem, as when its grid was widened, the file named later
counts. So does a run of the same settings that ends otherwise, and it is named: runs are bit-reproducible on one kind
of machine only. Statistics as in docs/bench.md; Holm over all problems and recipes that are shown; for the rows over
all problems, over the recipes. With --matrix a row is another recipe, a column a problem, and what stands there is how
much that recipe ends above the one named first.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from gcpo.experiment.bench.estimators import holm
from gcpo.experiment.bench.summary import comparison

Runs = dict[str, dict[str, dict[str, dict[str, float]]]]
"""Final accuracy and area by problem, recipe and seed."""


def gathered(benches: Iterable[Mapping]) -> Runs:
    """The runs of several ``bench.json``."""
    found: Runs = {}
    settings: dict[tuple[str, str], Mapping] = {}
    for bench in benches:
        for problem, rows in bench["problems"].items():
            for recipe, row in rows["recipes"].items():
                chosen = bench["tuning"][problem][recipe]["chosen"]
                if settings.get((problem, recipe), chosen) != chosen:
                    del found[problem][recipe]
                settings[problem, recipe] = chosen
                known = found.setdefault(problem, {}).setdefault(recipe, {})
                for seed, scores in row["runs"].items():
                    if known.get(seed, scores) != scores:
                        print(f"{problem}, {recipe}, seed {seed}: {known[seed]}, later {scores}", file=sys.stderr)
                    known[seed] = scores
    return found


def strata(runs: Runs, first: str, second: str, score: str) -> dict[str, np.ndarray]:
    """(n, 2) by problem: a score of both, of the seeds that both have."""
    found = {}
    for problem, recipes in runs.items():
        a, b = recipes.get(first, {}), recipes.get(second, {})
        if both := [seed for seed in a if seed in b]:
            found[problem] = np.array([[a[seed][score], b[seed][score]] for seed in both])
    return found


def compared(pairs: Iterable[np.ndarray]) -> dict:
    """A row of the table."""
    pairs = list(pairs)
    return {"means": np.mean([pair.mean(0) for pair in pairs], 0).tolist(), **comparison(pairs)}


def _adjusted(rows: Mapping) -> dict:
    return dict(zip(rows, holm([found["p"] for found in rows.values()]), strict=True))


def row(name: str, found: dict, p_holm: float) -> str:
    """A row of a Markdown table, in points of accuracy."""
    apart, chance = found["difference"], found["probability_of_improvement"]
    likely = f"{chance['value']:.2f}" + (" ({:.2f} to {:.2f})".format(*chance["ci95"]) if chance["ci95"] else "")
    better = f"{found['better']} of {found['pairs']}"
    p = f"{found['p']:.3f}, {p_holm:.3f}"
    means = " | ".join(f"{100 * mean:.1f}" for mean in reversed(found["means"]))
    return f"| {name} | {means} | {_gain(apart)} | {likely} | {better} | {p} |"


def table(runs: Runs, first: str, others: Iterable[str], score: str) -> str:
    """All problems of each of the others, and a row over all problems of each."""
    pairs = {other: strata(runs, first, other, score) for other in others}
    rows = {(other, problem): compared([pair]) for other, found in pairs.items() for problem, pair in found.items()}
    whole = {other: compared(found.values()) for other, found in pairs.items() if len(found) > 1}
    adjusted, adjusted_whole = _adjusted(rows), _adjusted(whole)
    lines = [
        f"| {score} | it, % | {first}, % | difference | P(improvement) | better | p, Holm |",
        "|---|---|---|---|---|---|---|",
    ]
    for other, found in pairs.items():
        lines += [row(f"{other}, {name}", rows[other, name], adjusted[other, name]) for name in found]
        lines += [row(f"**{other}, all**", whole[other], adjusted_whole[other])] if other in whole else []
    return "\n".join(lines)


def matrix(runs: Runs, first: str, others: Iterable[str]) -> str:
    """What each of the others has beyond the first in final accuracy, by problem, with 95 % intervals, in points.

    Bold where the interval leaves out 0.
    """
    problems = [problem for problem, recipes in runs.items() if first in recipes]
    lines = [f"| minus {first} | " + " | ".join(problems) + " |", "|---" * (1 + len(problems)) + "|"]
    for other in others:
        pairs = strata(runs, other, first, "final")
        apart = {problem: compared([pair])["difference"] for problem, pair in pairs.items()}
        cells = [_gain(apart[problem], mark=True) if problem in apart else "" for problem in problems]
        lines.append(f"| {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _gain(apart: dict, mark: bool = False) -> str:
    """In points, with the interval, which one pair has not; bold, if asked for, where that leaves out 0."""
    gain, ends = f"{100 * apart['value']:+.1f}", apart["ci95"]
    if ends is None:
        return gain
    bold = "**" if mark and (min(ends) > 0 or max(ends) < 0) else ""
    return f"{bold}{gain}{bold} ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("benches", nargs="+", type=Path, help="bench.json files")
    parser.add_argument("--against", nargs="+", help="what it is compared with (all that share a problem with it)")
    parser.add_argument("--matrix", action="store_true", help="recipes by problems")
    given = parser.parse_args()
    runs = gathered(json.loads(path.read_text()) for path in given.benches)
    if not any(given.recipe in recipes for recipes in runs.values()):
        raise SystemExit(f"no problem has runs of {given.recipe}: give another recipe, or the files that have it.")
    names = dict.fromkeys(name for recipes in runs.values() if given.recipe in recipes for name in recipes)
    others = given.against or [name for name in names if name != given.recipe]
    if unknown := [name for name in others if not strata(runs, given.recipe, name, "final")]:
        raise SystemExit(f"no problem has runs of both {given.recipe} and {unknown[0]}: give more files.")
    if given.matrix:
        print(matrix(runs, given.recipe, others))
    else:
        print("\n\n".join(table(runs, given.recipe, others, score) for score in ("final", "area")))


if __name__ == "__main__":
    main()
