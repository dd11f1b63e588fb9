"""Pages as a reader has them: in Chromium, by mouse and keyboard, on a phone, in the dark.

Each kind of page is a line in ``PAGES``; what every page owes is one test.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_bench import write_bench
from fake_eval import write_evaluation
from fake_probe import write_probe
from fake_run import write_run
from pages import CHROMIUM

from gcpo.report import build

playwright = pytest.importorskip("playwright.sync_api", reason="pip install gcpo[test]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install gcpo[test]")
pytest.importorskip("plotly")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]


def _several(directory: Path) -> list[Path]:
    return [write_run(directory / name, steps=12, seed=seed) for seed, name in enumerate(("first", "second"))]


playwright.expect.set_options(timeout=30_000)  # machines may be busy

PAGES: dict[str, Callable[[Path], Any]] = {
    "run": lambda directory: write_run(directory / "run", steps=12),
    "several": _several,
    "probe": lambda directory: write_probe(directory / "probe"),
    "evaluation": lambda directory: write_evaluation(directory / "evaluation"),
    "bench": lambda directory: write_bench(directory / "bench"),
}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a kind of page; at the end of the test neither its console nor the page itself may have told an error."""
    said: list[str] = []

    def open_(kind: str) -> Any:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(build(PAGES[kind](tmp_path), tmp_path / f"{kind}.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    for context in browser.contexts:
        context.close()
    assert said == []


def widest(page: Any, width: int) -> int:
    """How wide the page is, once its plots have taken the window's new width; at most 10 s."""
    for _ in range(100):
        if page.evaluate("document.documentElement.scrollWidth") == width:
            break
        page.wait_for_timeout(100)
    return int(page.evaluate("document.documentElement.scrollWidth"))


@pytest.mark.parametrize("kind", PAGES)
def test_readable_wide_and_narrow_in_light_and_dark(kind: str, opened: Open) -> None:
    page = opened(kind)
    for summary in page.locator("summary").all():
        summary.click()
    for width, scheme in ((1280, "dark"), (360, "light")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        for plot in page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
        playwright.expect(page.locator(".plot:not(.js-plotly-plot):not(:has(.empty))")).to_have_count(0)
        assert widest(page, width) == width
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def position(page: Any) -> str:
    return str(page.locator("#position").text_content())


def test_groups_are_found_by_mouse(opened: Open) -> None:
    page = opened("run")
    assert position(page) == "1 of 48"
    page.get_by_role("button", name="Next").click()
    assert position(page) == "2 of 48"
    page.locator("#state").select_option("dead")
    playwright.expect(page.locator("#group-title .status")).to_have_text("dead")
    assert page.locator("#previous").is_disabled()
    page.locator("#state").select_option("all")
    page.locator("#at-step").fill("7")
    assert position(page) == "1 of 4"
    playwright.expect(page.locator("#group-title")).to_contain_text("Step 7, group 0")
    page.locator("#search").fill("no such words")
    playwright.expect(page.locator("#no-group")).to_have_text("No group passes the filter.")
    assert page.locator("#group").is_hidden()


def test_groups_are_found_by_keyboard(opened: Open) -> None:
    page = opened("run")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert position(page) == "2 of 48"
    page.locator("#state").focus()
    page.keyboard.press("d")  # as in a list of options: the one that begins so
    playwright.expect(page.locator("#group-title .status")).to_have_text("dead")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.id") == "order"
    playwright.expect(page.locator("#order option:checked")).to_have_text("latest step")
    page.keyboard.press("Tab")
    page.keyboard.type("3")
    assert page.evaluate("document.activeElement.id") == "at-step"
    playwright.expect(page.locator("#position")).to_contain_text("1 of")
    page.keyboard.press("Backspace")
    page.keyboard.press("Tab")
    page.keyboard.type("What is")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("ArrowRight")  # inside a field it moves the caret
    playwright.expect(page.locator("#position")).to_contain_text("1 of")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the button "Next": "Previous" is not to be had
    playwright.expect(page.locator("#position")).to_contain_text("2 of")


def test_a_point_and_a_correlation_open_what_they_stand_for(opened: Open) -> None:
    page = opened("run")
    page.locator("#correlations button").first.click()
    playwright.expect(page.locator("#rho")).to_contain_text("Spearman ρ = ")
    page.locator("#scatter .points path").nth(5).click(force=True)
    playwright.expect(page.locator("#group-title")).to_be_focused()


def test_the_groups_of_each_run(opened: Open) -> None:
    page = opened("several")
    first = page.locator("#prompt").text_content()
    choices = page.locator("[data-run-choice] select")
    choices.last.select_option(label="second")
    playwright.expect(page.locator("#prompt")).not_to_have_text(first)
    playwright.expect(choices.first).to_have_value("1")


def test_prompts_of_a_probe(opened: Open) -> None:
    page = opened("probe")
    assert page.locator("#at-step").is_hidden()
    assert page.locator("[data-run-choice]").is_hidden()
    assert position(page) == "1 of 24"
    page.locator("#order").select_option(label="highest noise")
    playwright.expect(page.locator("#signals tr", has_text="noise").locator(".rank")).to_have_text("above 96 %")
    page.locator("#tracking-table thead button").last.press("Enter")
    playwright.expect(page.locator("#tracking-table th[aria-sort]")).to_have_count(1)
    page.locator("#tracking-table tbody button").first.click()
    playwright.expect(page.locator("#scatter-x")).to_be_focused()
