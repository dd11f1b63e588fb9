"""Curves whose tables are known beforehand."""

import csv
import json

import numpy as np
import pytest

from gcpo.experiment.bench import curves
from gcpo.experiment.bench.curves import Curve
from gcpo.experiment.bench.export import export, tables, text
from gcpo.experiment.bench.plan import parse
from gcpo.experiment.bench.summary import crossing, summarise
from gcpo.experiment.bench.tuning import choose

STEPS = np.array([0.0, 10.0, 20.0])


def curve(*accuracy, seconds=1.0):
    return Curve(
        np.array(accuracy), {"steps": STEPS, "samples": 8 * STEPS, "tokens": 80 * STEPS, "seconds": seconds * STEPS}
    )


def plan(**change):
    return parse(
        {"seeds": [0, 1, 2], "task": [{"task": "chain"}], "recipe": [{"recipe": "grpo"}, {"recipe": "gcpo"}]} | change
    )


@pytest.fixture
def tables_of_two():
    """gcpo has after 10 steps what grpo has after 20, whatever the seed."""
    shift = {0: 0.0, 1: 0.1, 2: 0.2}
    runs = {
        "grpo": {seed: curve(0.2 + s, 0.3 + s, 0.4 + s) for seed, s in shift.items()},
        "gcpo": {seed: curve(0.2 + s, 0.4 + s, 0.5 + s, seconds=1.5) for seed, s in shift.items()},
    }
    return summarise(plan(), {"chain/starter": runs})


def test_what_is_equal_for_all_seeds_has_a_point_for_an_interval(tables_of_two):
    row = tables_of_two["comparisons"]["final"]["gcpo"]
    assert row["difference"]["value"] == pytest.approx(0.1)
    assert row["difference"]["ci95"] == pytest.approx([0.1, 0.1])
    assert (row["better"], row["worse"], row["p"]) == (3, 0, 0.25)  # of 2^3 signs two are as extreme
    assert row["p_holm"] == 0.25
    assert row["probability_of_improvement"]["value"] == pytest.approx((3 + 2 + 1 + 0.5 * 2) / 9, abs=0.12)
    area = tables_of_two["scores"]["gcpo"]["area"]["mean"]
    assert area["value"] == pytest.approx(np.mean([0.2 + 0.4, 0.4 + 0.5]) / 2 + 0.1)


def test_half_the_steps_is_three_quarters_of_the_seconds_at_one_and_a_half_a_step(tables_of_two):
    problem = tables_of_two["problems"]["chain/starter"]
    assert problem["target"] == pytest.approx(0.5)
    ratio = problem["cost_ratios"]["gcpo"]
    for name, expected in (("steps", 0.5), ("samples", 0.5), ("tokens", 0.5), ("seconds", 0.75)):
        assert ratio[name]["value"] == pytest.approx(expected)
        assert ratio[name]["ci95"] == pytest.approx([expected, expected])
    assert ratio["unreached"] == 0


def test_runs_that_never_reach_the_target_are_counted_and_beyond_all_others():
    runs = {"grpo": {s: curve(0.2, 0.3, 0.4) for s in range(3)}, "gcpo": {0: curve(0.2, 0.3, 0.39)}}
    runs["gcpo"] |= {1: curve(0.2, 0.4, 0.4), 2: curve(0.2, 0.2, 0.2)}
    to = summarise(plan(), {"chain/starter": runs})["problems"]["chain/starter"]["recipes"]["gcpo"]["to_target"]
    assert (to["reached"], to["censored"]) == (1, 2)
    assert to["median"]["steps"] is None
    fixed = summarise(plan(task=[{"task": "chain", "target": 0.2}]), {"chain/starter": runs})
    assert fixed["problems"]["chain/starter"]["recipes"]["gcpo"]["to_target"]["median"]["steps"] == 0


def test_a_target_beyond_both_gives_no_ratio():
    runs = {name: {0: curve(0.2, 0.3, 0.4)} for name in ("grpo", "gcpo")}
    found = summarise(plan(task=[{"task": "chain", "target": 0.9}]), {"chain/starter": runs})
    ratio = found["problems"]["chain/starter"]["cost_ratios"]["gcpo"]
    assert (ratio["steps"]["value"], ratio["unreached"], ratio["baseline_unreached"]) == (None, 1.0, 1.0)


def test_who_alone_gets_to_the_target_has_a_ratio_of_nothing_and_who_alone_does_not_an_infinite_one():
    better = {s: curve(0.2, 0.5, 0.9) for s in range(3)}
    worse = {s: curve(0.2, 0.3, 0.4) for s in range(3)}
    at = plan(task=[{"task": "chain", "target": 0.8}])
    for base, ours, value, ends, missed in (
        (worse, better, 0.0, [0.0, 0.0], (0.0, 1.0)),
        (better, worse, None, [None, None], (1.0, 0.0)),
    ):
        found = summarise(at, {"chain/starter": {"grpo": base, "gcpo": ours}})
        ratio = found["problems"]["chain/starter"]["cost_ratios"]["gcpo"]
        assert (ratio["tokens"]["value"], ratio["tokens"]["ci95"]) == (value, ends)
        assert (ratio["unreached"], ratio["baseline_unreached"]) == missed


@pytest.mark.parametrize(
    ("target", "index"), [(0.2, 0.0), (0.1, 0.0), (0.25, 0.5), (0.4, 2.0), (0.5, None), (0.35, 1.5)]
)
def test_crossing(target, index):
    assert crossing(np.array([0.2, 0.3, 0.4]), target) == (None if index is None else pytest.approx(index))


def test_seeds_that_only_one_has_are_compared_with_nothing():
    runs = {"grpo": {0: curve(0, 0, 0.1), 1: curve(0, 0, 0.9)}, "gcpo": {0: curve(0, 0, 0.2)}}
    row = summarise(plan(), {"chain/starter": runs})["comparisons"]["final"]["gcpo"]
    assert (row["pairs"], row["difference"]["value"]) == (1, pytest.approx(0.1))
    nothing = summarise(plan(), {"chain/starter": {"grpo": {}, "gcpo": {}}})
    assert nothing["comparisons"] == {"final": {}, "area": {}}


def chosen(scores, **change):
    """What is chosen where the candidate's final accuracy is ``scores[learning rate]``, None for a failed run."""
    p = plan(learning_rates=sorted(scores), tuning_seeds=[7, 8], rule="final", **change)

    def read(cell):
        score = scores[cell.candidate["learning_rate"]]
        return None if score is None or (score < 0 and cell.seed == 8) else curve(0, 0, abs(score))

    return choose(p, p.problems[0], p.recipes[0], read)


def test_the_best_on_the_tuning_seeds_is_chosen_a_tie_goes_to_the_smaller():
    assert chosen({1e-4: 0.3, 2e-4: 0.5, 4e-4: 0.5})["chosen"] == {"learning_rate": 2e-4}
    assert chosen({1e-4: 0.3, 2e-4: 0.5, 4e-4: 0.4})["edges"] == []
    assert chosen({1e-4: 0.3, 2e-4: 0.5, 4e-4: 0.6})["edges"] == ["learning_rate"]


def test_a_candidate_with_a_failed_run_is_out():
    found = chosen({1e-4: 0.3, 2e-4: -0.9})
    assert found["chosen"] == {"learning_rate": 1e-4}
    assert [row["score"] for row in found["candidates"]] == [0.3, None]
    assert chosen({1e-4: None, 2e-4: None})["chosen"] is None


def test_tables_as_text_markdown_and_csv(tables_of_two, tmp_path):
    result = tables_of_two | {
        "plan": {"baseline": "grpo"},
        "tuning": {"chain/starter": {n: {"chosen": {"learning_rate": 1e-4}, "edges": []} for n in ("grpo", "gcpo")}},
    }
    result = json.loads(json.dumps(result))
    shown = "\n".join(map(text, tables(result)))
    assert "gcpo    3      10.0 (10.0 to 10.0)" in shown
    export(result, tmp_path)
    assert "| chain/starter | gcpo | learning_rate=0.0001 |" in (tmp_path / "bench.md").read_text()
    with (tmp_path / "to_target.csv").open() as file:
        [base, ours] = csv.DictReader(file)
    assert float(ours["steps ratio"]) == pytest.approx(0.5)
    assert (base["steps ratio"], base["steps ratio low"]) == ("", "")
    with (tmp_path / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


@pytest.mark.parametrize(("parts", "responses", "tokens"), [("first_draws", 6, 27), ("dynamic", 12, 71)])
def test_what_is_drawn_in_parts_is_counted_as_drawn(parts, responses, tokens):
    plain = {"step": 1, "completions/mean_length": 5.0}
    drawn = {f"gcpo/{parts}/responses": responses, f"gcpo/{parts}/tokens": tokens}
    found = curves._generated([plain, plain | drawn | {"step": 2}], {"responses": 8}, [0, 1, 2])
    assert found["samples"].tolist() == [0, 8, 8 + responses]
    assert found["tokens"].tolist() == [0, 40, 40 + tokens]


@pytest.mark.parametrize(
    ("n", "every", "samples"), [(4, 1, [0, 32, 64, 96]), (2, 4, [0, 8, 8, 16]), (2, 3, [0, 8, 16, 16])]
)
def test_responses_are_counted_as_often_as_they_are_drawn(n, every, samples):
    """n micro-batches a step, responses drawn in every so many of them: TRL says their lengths when it draws."""
    draws = {k // n + 1 for k in range(3 * n) if k % every == 0}
    metrics = [{"step": s} | ({"completions/mean_length": 5.0} if s in draws else {}) for s in (1, 2, 3)]
    summary = {"responses": 8, "micro_batches": n, "generate_every": every}
    found = curves._generated(metrics, summary, [0, 1, 2, 3])
    assert found["samples"].tolist() == samples
    assert found["tokens"].tolist() == [5 * count for count in samples]


def test_scores_are_over_the_problems_that_every_recipe_has_runs_of():
    easy, hard = {0: curve(0.8, 0.8, 0.8)}, {0: curve(0.1, 0.1, 0.1)}
    tasks = plan(task=[{"task": "chain"}, {"task": "product"}])
    table = {"chain/starter": {"grpo": easy, "gcpo": easy}, "product/starter": {"grpo": hard, "gcpo": {}}}
    scores = summarise(tasks, table)["scores"]
    assert {name: (row["final"]["mean"]["value"], row["final"]["problems"]) for name, row in scores.items()} == {
        "grpo": (0.8, 1),
        "gcpo": (0.8, 1),
    }
