"""Read the directory of a training run, whole or cut short, into plain data fit for JSON.

The page trusts what leaves this module: lists of a group have one entry a response, numbers are finite or None,
and every mapping has string keys. Whatever had to be left out is said in ``notes``, which the page prints.
"""

from pathlib import Path

from gcpo.recipes import RECIPES
from gcpo.report.reading import Record, document, items, named, names, number, numbers, padded, rows, text


def read(directory: Path) -> Record:
    """Everything the page shows of the training run in ``directory``.

    Raises:
        ValueError: If the directory or its metrics.jsonl does not exist.
    """
    if not (directory / "metrics.jsonl").is_file():
        what = "has no metrics.jsonl" if directory.is_dir() else "does not exist"
        raise ValueError(
            f"run directory {str(directory)!r} {what}; give the output directory of gcpo train, probe or eval."
        )
    notes: list[str] = []
    groups = [_group(row) for row in rows(directory / "groups.jsonl", notes)]
    config = document(directory / "config.yaml", notes)
    return {
        "name": directory.resolve().name,
        "config": config,
        "signal": _signal(config),
        "summary": document(directory / "summary.json", notes),
        "metrics": _columns(rows(directory / "metrics.jsonl", notes)),
        "signals": names(groups, "signals"),
        "groups": groups,
        "notes": notes,
    }


def _signal(config: Record) -> str | None:
    """The signal that steered the run, as far as its settings say."""
    trainer = config.get("trainer")
    chosen = trainer.get("gcpo_signal") if isinstance(trainer, dict) else None
    if chosen:
        return str(chosen)
    recipe = RECIPES.get(str(config.get("recipe")))
    return recipe.signal if recipe else None


def _columns(lines: list[Record]) -> dict[str, list[float | None]]:
    """The metrics as one list a name, ordered by step; where a resumed run repeats a step, its later line counts."""
    by_step = {row["step"]: row for row in lines if number(row.get("step")) is not None}
    ordered = [by_step[step] for step in sorted(by_step)]
    logged = dict.fromkeys(name for row in ordered for name in row)
    columns = {name: [number(row.get(name)) for row in ordered] for name in logged}
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def _group(row: Record) -> Record:
    """One recorded group, every list as long as its completions."""
    completions = [text(said) for said in items(row.get("completions"))]
    size = len(completions)
    rewards = numbers(row.get("rewards"), size)
    dead = row.get("dead")
    return {
        "step": number(row.get("step")),
        "group": number(row.get("group")),
        "prompt": text(row.get("prompt")),
        "answer": text(row.get("answer")),
        "completions": completions,
        "rewards": rewards,
        "advantages": numbers(row.get("advantages"), size),
        "labels": numbers(row.get("labels"), size),
        "signals": named(row.get("signals")),
        "weight": number(row.get("weight")),
        "variance": number(row.get("variance")),
        "dead": dead if isinstance(dead, bool) else len({r for r in rewards if r is not None}) < 2,
        "map": [numbers(point, 2) for point in padded(row.get("map"), size)],
    }
