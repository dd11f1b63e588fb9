"""How long report pages take to build and to open: ``python benchmarks/pages.py --json FILE``.

Made-up training runs as ``gcpo train`` leaves them, four groups recorded at up to 150 steps, and one with eight times
as many. Opened in a new window of headless Chromium. Building and opening are in seconds of the clock, the latter from
the request to the first frame after the page says that it is ready; ``cpu`` is what the page's main thread computed
until then, which other processes change less. Medians and extremes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

from fake_run import write_run
from pages import CHROMIUM
from playwright.sync_api import Browser, sync_playwright

from gcpo.report import build

RUNS = {  # steps, and every how many of them is recorded
    "60 steps": (60, 1),
    "1,000 steps": (1_000, 6),
    "10,000 steps": (10_000, 66),
    "10,000 steps, 5,000 groups": (10_000, 8),
}
_FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def seconds(what: Callable[[], Any]) -> float:
    """What the call takes."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def open_page(browser: Browser, page: Path) -> tuple[float, float]:
    """Seconds of the clock and of the main thread until there is a frame of the finished page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    session = context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    start = time.perf_counter()
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]")
    tab.evaluate(_FRAME)
    took = time.perf_counter() - start
    metrics = {row["name"]: row["value"] for row in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    return took, metrics["TaskDuration"]


def measure(browser: Browser, directory: Path, steps: int, every: int, repeats: int) -> dict[str, Any]:
    """What it takes to build the page of such a run and to open it."""
    run = write_run(directory / f"{steps}-{every}", steps=steps, recorded_every=every)
    built = [seconds(lambda: build(run)) for _ in range(repeats)]
    opened, computed = zip(*(open_page(browser, run / "report.html") for _ in range(repeats)), strict=True)
    spread = {
        name: {"median": statistics.median(times), "least": min(times), "most": max(times)}
        for name, times in (("build", built), ("open", opened), ("cpu", computed))
    }
    return {"mb": (run / "report.html").stat().st_size / 1e6, **spread}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("benchmarks/pages.py needs chromium, found none on the path: install it.")
    with sync_playwright() as started, tempfile.TemporaryDirectory() as scratch:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = {name: measure(browser, Path(scratch), *run, arguments.repeats) for name, run in RUNS.items()}
        result = {"chromium": browser.version, "repeats": arguments.repeats, "pages": found}
    for name, row in found.items():
        spreads = (row[key] for key in ("build", "open", "cpu"))
        times = " ".join(f"| {t['median']:.2f} [{t['least']:.2f}-{t['most']:.2f}]" for t in spreads)
        print(f"| {name} | {row['mb']:.1f} {times} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
