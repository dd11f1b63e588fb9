import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from fake_probe import RECIPES, SIGNALS, TARGETS, write_probe
from fake_run import write_run
from hypothesis import given, settings
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

UNKNOWN = {"value": None, "ci95": None}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_probe(tmp_path / "probe")


def only_run(page: Path) -> Any:
    [run] = Page(page).data["runs"]
    return run


def stub(directory: Path, **files: Any) -> Path:
    """A probe of which only these files were written: JSON, or text as it is."""
    directory.mkdir(exist_ok=True)
    (directory / "config.yaml").write_text("command: probe\ngroup_size: 2\n")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / (f"{name}.jsonl" if name == "prompts" else f"{name}.json")).write_text(text, encoding="utf-8")
    return directory


@pytest.mark.usefixtures("light")
def test_full_probe(run: Path) -> None:
    page = build(run)
    assert page == run / "report.html"
    data = only_run(page)
    tracking, alignment = (json.loads((run / f"{name}.json").read_text()) for name in ("tracking", "alignment"))
    assert data["signals"] == list(SIGNALS)
    assert sorted(data["targets"]) == sorted(TARGETS)
    assert data["tracking"] == {name: tracking[name] for name in SIGNALS}
    assert data["gaps"] == {name: tracking[name] for name in ("anisotropic_gap", "calibration_gap")}
    assert data["alignment"] == {name: alignment[name] for name in RECIPES}
    assert data["group_sizes"] == alignment["group_sizes"]
    assert len(data["groups"]) == 24
    assert data["config"]["versions"] == {"torch": "2.9.0"}
    assert data["notes"] == []


@pytest.mark.usefixtures("light")
def test_json_is_the_embedded_data_and_nothing_else_is_left(run: Path) -> None:
    before = set(os.listdir(run))
    page = build(run)
    assert (run / "report.json").read_text() == Page(page).scripts[0]
    assert set(os.listdir(run)) - before == {"report.html", "report.json"}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("rewards", "dead"), [([1, 1, 0, 0], True), ([1, 0, 0, 0], False), ([None, 1, 0], True), ([], True)]
)
def test_a_group_is_dead_by_the_rewards_that_the_signals_saw(tmp_path: Path, rewards: Any, dead: bool) -> None:
    [group] = only_run(build(stub(tmp_path / "probe", prompts={"rewards": rewards})))["groups"]
    assert group["dead"] is dead
    assert group["seen"] == min(2, len(rewards))


@pytest.mark.usefixtures("light")
def test_interrupted_probe(run: Path) -> None:
    for name in ("summary.json", "alignment.json"):
        (run / name).unlink()
    for name, kept in (("tracking.json", 2000), ("prompts.jsonl", -20)):
        (run / name).write_text((run / name).read_text()[:kept])
    data = only_run(build(run))
    assert data["tracking"] == data["gaps"] == data["alignment"] == data["group_sizes"] == data["summary"] == {}
    assert data["signals"] == list(SIGNALS)
    assert len(data["groups"]) == 23
    assert data["notes"] == [
        "tracking.json could not be read and is left out.",
        "1 unreadable line of prompts.jsonl left out.",
    ]


@pytest.mark.usefixtures("light")
def test_a_probe_that_only_began(tmp_path: Path) -> None:
    data = only_run(build(stub(tmp_path / "probe")))
    assert data["signals"] == data["targets"] == data["groups"] == data["notes"] == []


@pytest.mark.usefixtures("light")
def test_numbers_that_are_not(tmp_path: Path) -> None:
    cell = {"spearman": {"value": float("nan"), "ci95": [0, 1]}, "kendall": {"value": 0.5, "ci95": [float("inf"), 1]}}
    run = stub(
        tmp_path / "probe",
        tracking={"s": {"a": cell, "b": 3}, "t": None, "anisotropic_gap": {"signal": "s", "same": {"difference": 1}}},
        alignment={"grpo": {"clean": {"cosine": "x"}, "flip": []}, "group_sizes": 1},
        prompts={"rewards": [float("nan"), 1], "signals": {"s": float("-inf")}, "targets": [1]},
    )
    data = only_run(build(run))
    assert data["tracking"] == {
        "s": {"a": {"spearman": {"value": None, "ci95": [0, 1]}, "kendall": {"value": 0.5, "ci95": None}}, "b": {}},
        "t": {},
    }
    assert data["gaps"] == {"anisotropic_gap": {"signal": "s", "same": {"difference": UNKNOWN}}}
    unknown = {"cosine": None, "relative": UNKNOWN}
    assert data["alignment"] == {"grpo": {"clean": unknown, "flip": unknown}}
    assert data["group_sizes"] == {}
    [group] = data["groups"]
    assert group["rewards"] == [None, 1]
    assert (group["signals"], group["targets"]) == ({"s": None}, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("signal"), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=30, deadline=None)
@given(JSON, JSON, JSON)
def test_any_json_makes_a_page(tracking: Any, alignment: Any, prompts: Any) -> None:
    files = {"tracking": tracking, "alignment": alignment, "prompts": prompts}
    with tempfile.TemporaryDirectory() as directory, patch("plotly.offline.get_plotlyjs", return_value=""):
        texts = {name: json.dumps(content) for name, content in files.items()}
        data = only_run(build(stub(Path(directory), **texts)))
    estimates = [e for row in data["tracking"].values() for cell in row.values() for e in cell.values()]
    estimates += [cell["relative"] for row in data["alignment"].values() for cell in row.values()]
    assert all(set(estimate) == {"value", "ci95"} for estimate in estimates)


def assert_contained(text: str, directory: Path) -> None:
    """``text``, wherever a model or a data file may write it, comes back as it was and has not become markup."""
    estimate = {"value": 0.5, "ci95": [0.25, 0.75]}
    run = stub(
        directory,
        tracking={f"s{text}": {text: {text: estimate}}, "anisotropic_gap": {"signal": text}},
        alignment={f"r{text}": {text: {"cosine": 0.5, "relative": estimate}}},
        prompts={"prompt": text, "rewards": [0, 1], "signals": {text: 1.0}, "targets": {text: 2.0}},
        summary={"status": text},
    )
    page = Page(build(run))
    [data] = page.data["runs"]
    assert data["tracking"] == {f"s{text}": {text: {text: estimate}}}
    assert data["gaps"] == {"anisotropic_gap": {"signal": text}}
    assert list(data["alignment"]) == [f"r{text}"]
    assert data["groups"][0]["prompt"] == data["summary"]["status"] == text
    assert data["groups"][0]["signals"] == {text: 1.0}
    assert_inert(page)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text(text: str, tmp_path: Path) -> None:
    assert_contained(text, tmp_path / "probe")


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory, patch("plotly.offline.get_plotlyjs", return_value=""):
        assert_contained(text, Path(directory))


@pytest.mark.usefixtures("light")
def test_the_page_needs_nothing_and_has_what_its_scripts_ask_for(run: Path) -> None:
    page = build(run)
    assert_fetches_nothing(page)
    assert_has_what_its_scripts_ask_for(page)


def test_the_browser_may_run_only_our_scripts(run: Path) -> None:
    assert_runs_only_its_scripts(build(run))


def test_a_probe_has_its_page_for_itself(run: Path, tmp_path: Path) -> None:
    for others in ([write_run(tmp_path / "train", steps=2)], [write_probe(tmp_path / "again")]):
        with pytest.raises(ValueError, match=r"'.*probe' is of a probe, .* but 2 runs were given; give it alone\.$"):
            build([run, *others])


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_renders_in_a_browser(run: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (run / "prompts.jsonl").read_text().splitlines()]
    rows[0]["prompt"] = "".join(DUMPABLE)
    (run / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracking, alignment = (json.loads((run / f"{name}.json").read_text()) for name in ("tracking", "alignment"))
    (run / "alignment.json").write_text(json.dumps(alignment | {DUMPABLE[1]: alignment["rloo"]}))
    dom, log = render(build(run), tmp_path / "profile")

    assert_drawn(dom, log, plots=5)
    assert "&lt;img src=x onerror" in dom
    for name in SIGNALS:
        assert f'<th scope="row">{name.replace("_", " ")}</th>' in dom
    # The page's own statistics agree with the probe's: of the signal that tracks the fresh score variance best.
    best = max(SIGNALS, key=lambda name: tracking[name]["score_variance/fresh"]["spearman"]["value"])
    rho = tracking[best]["score_variance/fresh"]["spearman"]
    interval = " to ".join(f"{end:.2f}" for end in rho["ci95"])
    said = f"Spearman ρ = {rho['value']:.2f} over 24 groups, 95 % interval {interval}"
    assert said.replace("-", "−") in dom


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_renders_what_a_broken_probe_of_hostile_names_left(tmp_path: Path) -> None:
    name = DUMPABLE[1]
    run = stub(
        tmp_path / "probe",
        tracking={
            name: {name: {name: None}, "b": 1},
            "s": {},
            "a_gap": {"signal": name},
            name * 2: {"signal": "t", name: {"difference": {"value": 1}, name: 1}},
        },
        alignment={name: {name: {}, "clean": {"relative": {"value": 0.5}}}, "grpo": 1, "group_sizes": {name: 1}},
        prompts=json.dumps({"signals": {name: 1}, "targets": {name: 0.5}})
        + '\n{"prompt": 1, "rewards": [null, 2]}\n{"p',
    )
    dom, log = render(build(run), tmp_path / "profile")
    assert_drawn(dom, log, plots=5)
    assert "1 unreadable line of prompts.jsonl left out." in dom
