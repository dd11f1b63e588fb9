"""What a bench shows while it runs: a line a recipe on a terminal, and how long it may take, on standard error."""

import sys
from collections import defaultdict
from collections.abc import Sequence

from tqdm import tqdm

from gcpo.experiment.bench.curves import Curve
from gcpo.experiment.bench.plan import Cell
from gcpo.experiment.progress import bar

_LINE = "  {desc:<24} {n_fmt:>5} of {total_fmt}{postfix}"


class Live:
    """Bars over the cells of a phase; ``told`` moves them.

    Args:
        phase: What the cells are for.
        cells: All of them.
        finished: How many are already.
    """

    def __init__(self, phase: str, cells: Sequence[Cell], finished: Sequence[Cell]) -> None:
        self._whole = bar(total=len(cells), initial=len(finished), label=phase)
        self._reached: defaultdict[str, list[float]] = defaultdict(list)
        names = [cell.recipe.name for cell in cells]
        before = [cell.recipe.name for cell in finished]
        self._rows = {
            name: tqdm(
                total=names.count(name),
                initial=before.count(name),
                desc=name,
                position=place,
                bar_format=_LINE,
                leave=False,
                file=sys.stderr,
                disable=not sys.stderr.isatty(),
            )
            for place, name in enumerate(dict.fromkeys(names), 1)
        }

    def told(self, cell: Cell, curve: Curve | None, reason: str | None) -> None:
        """A cell has ended."""
        name = cell.recipe.name
        said = f"FAILED: {reason}" if curve is None else f"{curve.final:.1%} in {curve.cost['seconds'][-1]:.0f} s"
        tqdm.write(f"{cell.directory}: {said}", file=sys.stderr)
        if curve is not None:
            self._reached[name].append(curve.final)
            mean = sum(self._reached[name]) / len(self._reached[name])
            self._rows[name].set_postfix_str(f"mean accuracy {mean:.1%}", refresh=False)
        self._rows[name].update()
        self._whole.update()

    def close(self) -> None:
        """Leave the whole's bar alone on the terminal."""
        for row in (*self._rows.values(), self._whole):
            row.close()
