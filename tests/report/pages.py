"""What a report page holds, by its markup and by what a browser makes of it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- <script>",
    "\u2028\u2029",
    "\ud800 lone",
    "\0 NUL",
    "]]> &lt; &amp; $data ${x} %{y}",
]
# Chromium shows a lone surrogate, but crashes when it dumps it.
DUMPABLE = [text for text in HOSTILE if "\ud800" not in text]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.in_script = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.in_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def assert_fetches_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"https?:|//cdn|@import|\bimport\(|\bfetch\(|XMLHttpRequest|url\(", text)
    for _, attributes in Page(path).elements:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")


def assert_runs_only_its_scripts(path: Path) -> None:
    page = Page(path)
    [policy] = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    directives = dict(part.split(maxsplit=1) for part in (policy or "").split(";"))
    assert directives["default-src"] == "'none'"
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in page.scripts[1:]]
    assert len(hashes) == 3
    assert directives["script-src"].split() == hashes


def assert_has_what_its_scripts_ask_for(path: Path) -> None:
    """Every element that a script takes by its id, without asking whether there is one, is on the page."""
    page = Page(path)
    asked = set(re.findall(r"\$\(\"([\w-]+)\"\)(?!\?)", page.scripts[3]))
    assert len(asked) > 10
    assert asked <= {attributes.get("id") for _, attributes in page.elements}


def assert_inert(page: Page) -> None:
    """The data cannot leave the element that they are in."""
    assert page.scripts[0].isascii()
    assert not set("<>&\0") & set(page.scripts[0])
    assert [tag for tag, _ in page.elements].count("script") == 4


def assert_drawn(dom: str, log: str, plots: int) -> None:
    """The page's scripts ran to their end, nothing failed, and so many plots were drawn."""
    assert re.search(r'<html[^>]* data-ready="\d+"', dom)
    assert re.search(r'<pre id="error"[^>]* hidden=""', dom)
    assert "CONSOLE" not in log
    assert len(re.findall(r'<div class="plot[^"]* js-plotly-plot', dom)) == plots
    assert "<img" not in dom


def render(page: Path, profile: Path) -> tuple[str, str]:
    """The page's DOM after its scripts ran, and what the browser logged."""
    switches = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    switches += (
        " --disable-component-update --disable-sync --virtual-time-budget=4000 --enable-logging=stderr --dump-dom"
    )
    # So high a window that every plot is in it: plots are drawn when they come near.
    command = [
        str(CHROMIUM),
        *switches.split(),
        "--window-size=1280,9000",
        f"--user-data-dir={profile}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr
