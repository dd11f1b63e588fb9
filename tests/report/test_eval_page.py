import json
from pathlib import Path
from typing import Any

import pytest
from fake_eval import write_evaluation
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

from gcpo.report import build, evaldir

pytest.importorskip("plotly")


def only_run(page: Path) -> Any:
    [run] = Page(page).data["runs"]
    return run


@pytest.mark.usefixtures("light")
def test_figures_comparison_and_failures(tmp_path: Path) -> None:
    run = write_evaluation(tmp_path / "run")
    data, summary = only_run(build(run)), json.loads((run / "summary.json").read_text())
    assert list(data["figures"]) == ["greedy", "majority", "pass@1", "pass@2"], "a score would say what pass@1 says"
    assert data["figures"]["greedy"] == summary["greedy"]
    assert data["against"]["pass@2"] == summary["against"]["pass@k"]["2"]
    assert data["comparison"]["greedy"]["p"] == summary["comparison"]["greedy"]["p"]
    records = sorted(map(json.loads, (run / "responses.jsonl").read_text().splitlines()), key=lambda r: r["i"])
    failed = [r["i"] for r in records if r["greedy_score"] == 0 or min(r["scores"]) == 0]
    assert [group["i"] for group in data["groups"]] == failed
    assert data["asked"] == 20


@pytest.mark.usefixtures("light")
def test_a_failure_has_all_responses_and_how_they_were_read(tmp_path: Path) -> None:
    group = only_run(build(write_evaluation(tmp_path / "run")))["groups"][0]
    assert [r["label"] for r in group["responses"]] == [
        "greedy", "sample 1", "sample 2", "sample 3", "other model, greedy"
    ]  # fmt: skip
    right = [r["right"] for r in group["responses"]]
    assert [r["read"] == str(group["i"]) for r in group["responses"]] == right
    assert group["rate"] == pytest.approx(sum(right[1:4]) / 3)
    assert group["wrong"] == (not right[0])
    assert group["lost"] == (right[4] and not right[0])
    assert group["answer"] == f"{group['i']}\na"


@pytest.mark.usefixtures("light")
def test_an_evaluation_cut_short(tmp_path: Path) -> None:
    run = write_evaluation(tmp_path / "run", against=False)
    (run / "summary.json").write_text('{"status": "running"}')
    lines = (run / "responses.jsonl").read_text()
    (run / "responses.jsonl").write_text(lines[: len(lines) // 2])
    data = only_run(build(run))
    assert data["figures"] == data["comparison"] == {}
    assert data["against"] is None
    assert 0 < data["asked"] < 20
    assert data["notes"] == ["1 unreadable line of responses.jsonl left out."]


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    "row", [{}, {"i": None, "responses": 3, "scores": "x"}, {"responses": [None, 1], "scores": []}]
)
def test_records_of_any_shape(tmp_path: Path, row: Any) -> None:
    run = write_evaluation(tmp_path / "run", prompts=1)
    for name in ("responses", "against"):
        (run / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (run / "summary.json").write_text('{"greedy": 3, "pass@k": [], "against": 1, "comparison": {"greedy": 2}}')
    assert len(only_run(build(run))["groups"]) == 1


@pytest.mark.usefixtures("light")
def test_a_long_list_of_failures_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaldir, "SHOWN", 4)
    monkeypatch.setattr(evaldir, "SAMPLES", 2)
    data = only_run(build(write_evaluation(tmp_path / "run")))
    assert len(data["groups"]) == 4
    assert data["notes"] == [
        f"The first 4 of {data['failed']} prompts with a wrong response are shown; the rest is on disk.",
        "The first 2 samples of each prompt are shown; figures are of all.",
    ]
    assert [r["label"] for r in data["groups"][0]["responses"]][:3] == ["greedy", "sample 1", "sample 2"]
    assert {group["rate"] for group in data["groups"]} <= {0, 1 / 3, 2 / 3, 1}


@pytest.mark.usefixtures("light")
def test_an_evaluation_has_its_page_for_itself(tmp_path: Path) -> None:
    runs = [write_evaluation(tmp_path / name, prompts=2) for name in "ab"]
    with pytest.raises(ValueError, match="is of an evaluation, whose page shows nothing else, but 2 runs were given"):
        build(runs)


def test_the_page_is_complete_and_runs_nothing_else(tmp_path: Path) -> None:
    page = build(write_evaluation(tmp_path / "run", said="\n".join(HOSTILE)))
    assert_has_what_its_scripts_ask_for(page)
    assert_runs_only_its_scripts(page)
    assert_inert(Page(page))


@pytest.mark.usefixtures("light")
def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    assert_fetches_nothing(build(write_evaluation(tmp_path / "run")))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_draws_it(tmp_path: Path) -> None:
    page = build(write_evaluation(tmp_path / "run", said="\n".join(DUMPABLE)))
    dom, log = render(page, tmp_path / "profile")
    assert_drawn(dom, log, plots=1)
    for words in ("McNemar, exact", "first response", "other model, greedy", "1 of "):
        assert words in dom
