"""Write the page: data, plotly's script and the code of this package in one file that needs no network."""

import json
import os
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from gcpo.report import benchdir, evaldir, probedir, rundir
from gcpo.report.reading import Record

# In the order in which they run; the last one starts the page. What shared scripts ask of a page, it defines.
_SHARED = ("stats.js", "dom.js", "plots.js", "overview.js")
_GROUPS = (*_SHARED, "browser.js", "scatter.js")
_PAGES = {
    "train": (*_GROUPS, "outcome.js", "curves.js", "group.js", "signals.js", "page.js"),
    "probe": (*_GROUPS, "gaps.js", "tracking.js", "prompt.js", "alignment.js", "probe.js"),
    "eval": (*_SHARED, "browser.js", "figures.js", "failure.js", "eval.js"),
    "bench": (*_SHARED, "bench.js"),
}
_READERS = {"train": rundir.read, "probe": probedir.read, "eval": evaldir.read, "bench": benchdir.read}


def build(runs: Path | Sequence[Path], output: Path | None = None) -> Path:
    """Write the report of one run, or of several training runs overlaid in one page.

    Args:
        runs: Run directories, of training runs, or of one probe, evaluation or bench. A run that is still going or was
            cut short is shown as far as it got.
        output: The page, or a directory for it; by default ``report.html`` in the (first) run directory. The data
            go beside it under the same name with the suffix ``.json``.

    Returns:
        The path of the page.

    Raises:
        ValueError: If no run is given, a run has no metrics, a probe, evaluation or bench is one of several, or
            ``output`` ends in ``.json``.
    """
    directories = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not directories:
        raise ValueError("a report needs a run directory, but the list of runs is empty; give at least one.")
    page = _target(directories[0] if output is None else Path(output))
    kind = _kind(directories)
    data = _encode({"runs": _named([_READERS[kind](directory) for directory in directories])})
    html = _html(data, f"{kind}.html", _PAGES[kind])
    page.parent.mkdir(parents=True, exist_ok=True)
    _write(page.with_suffix(".json"), data)
    _write(page, html)
    return page


def _kind(directories: Sequence[Path]) -> str:
    """What the page is of, a key of ``_PAGES``."""
    for kind, found, called in (
        ("probe", probedir.is_probe, "a probe"),
        ("eval", evaldir.is_evaluation, "an evaluation"),
        ("bench", benchdir.is_bench, "a bench"),
    ):
        alone = [directory for directory in directories if found(directory)]
        if alone and len(directories) > 1:
            raise ValueError(
                f"run directory {str(alone[0])!r} is of {called}, whose page shows nothing else, but "
                f"{len(directories)} runs were given; give it alone."
            )
        if alone:
            return kind
    return "train"


def _target(output: Path) -> Path:
    if output.suffix == ".json":
        raise ValueError(
            f"output {str(output)!r} would be overwritten by the page's data; give a name ending in .html."
        )
    return output / "report.html" if output.is_dir() else output


def _named(runs: list[Record]) -> list[Record]:
    """``runs`` with names that tell them apart: those of equal directories are numbered."""
    count = Counter(run["name"] for run in runs)
    return [
        run | {"name": f"{run['name']} ({number})"} if count[run["name"]] > 1 else run
        for number, run in enumerate(runs, start=1)
    ]


def _encode(data: Any) -> str:
    """JSON in ASCII that stays inside a ``<script>`` element whatever a model wrote."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    # These occur only inside strings, where an escape means the same.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _html(data: str, body: str, scripts: Sequence[str]) -> str:
    from plotly.offline import get_plotlyjs  # slow to import, and an optional dependency

    guard, plotly, script = _resource("guard.js"), get_plotlyjs(), "\n".join(map(_resource, scripts))
    # The browser runs the scripts with these hashes and no other: markup that slipped through could run nothing.
    hashes = " ".join(map(_hash, (guard, plotly, script)))
    return Template(_resource("page.html")).substitute(
        hashes=hashes,
        style=_resource("page.css"),
        body=Template(_resource(body)).substitute(browser=_resource("browser.html")),
        data=data,
        guard=guard,
        plotly=plotly,
        script=script,
    )


def _resource(name: str) -> str:
    return files("gcpo.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _write(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` in one go, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
