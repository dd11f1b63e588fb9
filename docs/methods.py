"""Write the method index from the registries and the docstrings: ``python docs/methods.py`` renews ``methods.md``.

A method's module has a docstring of a title, a paragraph ``Source: ...``, the formula indented, and a paragraph
``Degenerate: ...``. Costs are the medians of ``benchmarks/results/signals.json``. The site takes what this says, not
the file, so a new signal or recipe is in it at once.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gcpo.advantages import BASES, damping
from gcpo.recipes import RECIPES, Recipe
from gcpo.signals import SIGNALS, Signal

HERE = Path(__file__).parent
_COSTS = HERE.parent / "benchmarks" / "results" / "signals.json"
_HEAD = """# Method index

`python docs/methods.py` writes this page from the code: edit the docstrings, not the page. [method.md](method.md)
tells the paper's from ours, [choosing.md](choosing.md) which to take.
"""
_RECIPES = """## Recipes

A recipe is a base advantage and what steers it; it needs rewards, and what the third column says. Cost is that of its
signal, as in the table of signals.
"""
_SIGNALS = """## Signals

Each takes B groups of G responses and gives (B,). Least and largest value are those on 8 responses. Cost is the median
time of 256 groups of 16 responses with 384 features, in milliseconds, one thread of an x86 CPU
([results/signals.md](results/signals.md)); making the inputs is not in it.
"""


def page() -> str:
    """The whole page, as Markdown."""
    ours = [s for s in SIGNALS.values() if s.function.__module__.startswith("gcpo.")]
    recipes = _table(("recipe", "formula", "needs", "cost", "source"), map(_recipe, RECIPES.values()))
    signals = _table(("signal", "of", "says", "least, largest", "cost", "source"), map(_signal, ours))
    parts = [
        *(_HEAD, _RECIPES, recipes, *_sections([*BASES.values(), damping])),
        *(_SIGNALS, signals, *_sections(s.function for s in ours)),
    ]
    return "\n".join(parts)


def _recipe(r: Recipe) -> Iterator[str]:
    formula = r.describe().replace("|", "\\|")
    cost = _cost(r.signal) if r.signal else "-"
    yield from (f"`{r.name}`", f"`{formula}`", ", ".join(r.needs) or "-", cost, r.source)


def _signal(s: Signal) -> Iterator[str]:
    n = torch.tensor([8.0])
    upper = "none" if s.upper is None else f"{s.upper(n).item():.3g}"
    named = f"[`{s.name}`](#{_anchor(_module(s.function))})"
    yield from (named, ", ".join(s.needs), s.summary, f"{s.lower(n).item():.3g}, {upper}", _cost(s.name), s.source)


def _cost(name: str) -> str:
    """The median of each way the signal was measured in."""
    rows = json.loads(_COSTS.read_text(encoding="utf-8"))["floor"]
    mine = [row for row in rows if row["signal"].partition(" ")[0] == name]
    return "; ".join(f"{row['ms']['median']:.3g}{row['signal'].removeprefix(name)}" for row in mine) or "not measured"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    first, *rest = [list(head), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (first, ["---"] * len(first), *rest))


def _sections(functions: Iterable[Callable[..., Any]]) -> Iterator[str]:
    """A section a module, in the order of its first function."""
    for module in dict.fromkeys(map(_module, functions)):
        paragraphs = (inspect.getdoc(module) or "").split("\n\n")
        formula = "\n".join(inspect.cleandoc(f"\n{p}") for p in paragraphs if p.startswith("    "))
        if not formula:
            raise ValueError(f"the docstring of {module.__name__} has no formula: write it as an indented paragraph.")
        title = _prose(paragraphs[0])
        said = [f"{name}: {_prose(_paragraph(module, paragraphs, name))}" for name in ("Degenerate", "Source")]
        yield "\n\n".join([f"### {_anchor(module)}", title, f"```text\n{formula}\n```", *said]) + "\n"


def _module(function: Callable[..., Any]) -> ModuleType:
    module = inspect.getmodule(inspect.unwrap(function))
    assert module is not None
    return module


def _anchor(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _paragraph(module: ModuleType, paragraphs: list[str], name: str) -> str:
    found = [p.removeprefix(f"{name}: ") for p in paragraphs if p.startswith(f"{name}: ")]
    if len(found) != 1:
        raise ValueError(
            f"the docstring of {module.__name__} has {len(found)} paragraphs that begin with {name!r}: write one."
        )
    return found[0]


def _prose(text: str) -> str:
    """Plain text with ``names`` as Markdown; elsewhere what Markdown would take for markup is escaped."""
    parts = re.split(r"(``[^`]+``)", text)
    return "".join(p.replace("``", "`") if p.startswith("``") else re.sub(r"([*_|<\[])", r"\\\1", p) for p in parts)


if __name__ == "__main__":
    (HERE / "methods.md").write_text(page(), encoding="utf-8")
