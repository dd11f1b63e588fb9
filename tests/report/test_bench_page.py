import json
from pathlib import Path
from typing import Any

import pytest
from fake_bench import write_bench
from fake_run import write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import (
    CHROMIUM,
    DUMPABLE,
    HOSTILE,
    Page,
    assert_drawn,
    assert_fetches_nothing,
    assert_has_what_its_scripts_ask_for,
    assert_inert,
    assert_runs_only_its_scripts,
    render,
)

from gcpo.report import build

pytest.importorskip("plotly")


def only(page: Path) -> Any:
    [bench] = Page(page).data["runs"]
    return bench


@pytest.mark.usefixtures("light")
def test_full_bench(tmp_path: Path) -> None:
    page = build(write_bench(tmp_path / "bench"))
    data, written = only(page), json.loads((tmp_path / "bench/bench.json").read_text())
    assert data["scores"] == {
        name: {score: {how: row[score][how] for how in ("iqm", "mean")} for score in row}
        for name, row in written["scores"].items()
    }
    assert data["summary"] == {"status": "failed"}
    assert data["notes"] == ["Failed: chain/starter/gcpo/lr=0.0002/seed=2: exit code 1: it broke"]
    assert data["cells"] == [5, 6]
    assert_fetches_nothing(page)
    assert_runs_only_its_scripts(page)
    assert_has_what_its_scripts_ask_for(page)


@pytest.mark.usefixtures("light")
def test_what_the_scores_leave_out_and_what_tuning_saw_is_noted(tmp_path: Path) -> None:
    bench = write_bench(tmp_path / "bench")
    content = json.loads((bench / "bench.json").read_text()) | {
        "scored": [], "shared_prompts": {"chain/starter": {"shared": 3, "of": 8}},
        "unpaired": ["chain/starter/gcpo/seed=1"],
    }  # fmt: skip
    (bench / "bench.json").write_text(json.dumps(content))
    assert only(build(bench))["notes"][:3] == [
        "The result is without chain/starter, on which not every recipe has a run.",
        "chain/starter: 3 of 8 held-out prompts are also those of tuning.",
        "No pair of the baseline's: chain/starter/gcpo/seed=1 began with another accuracy.",
    ]


@pytest.mark.usefixtures("light")
def test_a_bench_has_its_page_for_itself(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of a bench, whose page shows nothing else, but 2 runs were given"):
        build([write_run(tmp_path / "run"), write_bench(tmp_path / "bench")])


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(tmp_path: Path, text: str) -> None:
    assert_inert(Page(build(write_bench(tmp_path / "bench", name=text))))


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.usefixtures("light")
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["scores", "comparisons", "problems", "tuning", "plan", "status", "failed"]), junk=JUNK)
def test_any_content_makes_a_page(tmp_path: Path, key: str, junk: Any) -> None:
    bench = write_bench(tmp_path / "bench")
    (bench / "bench.json").write_text(json.dumps(json.loads((bench / "bench.json").read_text()) | {key: junk}))
    assert only(build(bench))["name"] == "bench"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("name", ["gcpo", DUMPABLE[1]])
def test_a_browser_draws_it(tmp_path: Path, name: str) -> None:
    page = build(write_bench(tmp_path / "bench", name=name))
    dom, log = render(page, tmp_path / "profile")
    assert_drawn(dom, log, plots=3)
    assert "57.0 % to 63.0 %" in dom
    for ratio in ("0.63 to ∞", "<strong>∞</strong> <small>0.50 to ∞", "0.67 to 0.73", "1 and 2 of 3"):
        assert ratio in dom
    assert "not yet: 3 tuning runs to go" in dom


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_draws_a_bench_without_a_finished_run(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/bench.json").write_text("{}")
    dom, log = render(build(tmp_path / "bench"), tmp_path / "profile")
    assert_drawn(dom, log, plots=0)
