"""Curves whose tables are known beforehand."""

import csv
import itertools
import json
import math

import numpy as np
import pytest

from gcpo.experiment.bench import curves
from gcpo.experiment.bench.curves import Curve
from gcpo.experiment.bench.export import export, tables, text
from gcpo.experiment.bench.plan import parse
from gcpo.experiment.bench.summary import crossing, summarise
from gcpo.experiment.bench.tuning import choices, choose, tuning_cells

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
    assert (ratio["reached"], ratio["infinite"], ratio["undefined"]) == ([3, 2], 0, 0)


def test_runs_that_never_reach_the_target_are_counted_and_beyond_all_others():
    runs = {"grpo": {s: curve(0.2, 0.3, 0.4) for s in range(3)}, "gcpo": {0: curve(0.2, 0.3, 0.39)}}
    runs["gcpo"] |= {1: curve(0.2, 0.4, 0.4), 2: curve(0.2, 0.2, 0.2)}
    to = summarise(plan(), {"chain/starter": runs})["problems"]["chain/starter"]["recipes"]["gcpo"]["to_target"]
    assert (to["reached"], to["censored"]) == (1, 2)
    assert to["median"]["steps"] is None
    fixed = summarise(plan(task=[{"task": "chain", "target": 0.2}]), {"chain/starter": runs})
    assert fixed["problems"]["chain/starter"]["recipes"]["gcpo"]["to_target"]["median"]["steps"] == 0


@pytest.mark.parametrize(
    ("ours", "base", "ratio", "reached"),
    [
        (0.3, 0.3, None, [0, 0]),
        (0.3, 0.5, {"value": None, "ci95": [None, None]}, [0, 2]),  # infinite: the recipe alone does not get there
        (0.5, 0.3, {"value": 0.0, "ci95": [0.0, 0.0]}, [2, 0]),  # the baseline's miss is not charged to the recipe
        (0.5, 0.5, {"value": 1.0, "ci95": [1.0, 1.0]}, [2, 2]),
    ],
)
def test_who_misses_the_target_decides_the_ratio(ours, base, ratio, reached):
    runs = {name: {s: curve(0.2, 0.25, end) for s in (0, 1)} for name, end in (("grpo", base), ("gcpo", ours))}
    found = summarise(plan(task=[{"task": "chain", "target": 0.4}]), {"chain/starter": runs})
    row = found["problems"]["chain/starter"]["cost_ratios"]["gcpo"]
    assert all(row[cost] == ratio for cost in curves.COSTS)
    assert row["reached"] == reached


def test_resamples_without_a_ratio_are_left_out_of_its_interval():
    """Of two seeds one reaches the target, on either side: a resample of the other twice says nothing."""
    runs = {name: {0: curve(0.2, 0.3, 0.9), 1: curve(0.2, 0.2, 0.3)} for name in ("grpo", "gcpo")}
    found = summarise(plan(task=[{"task": "chain", "target": 0.5}]), {"chain/starter": runs})
    row = found["problems"]["chain/starter"]["cost_ratios"]["gcpo"]
    assert row["steps"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert (row["infinite"], row["undefined"]) == (0, pytest.approx(0.25, abs=0.05))


def test_scores_are_of_the_problems_on_which_every_recipe_has_a_run():
    """The hard problem, on which gcpo crashed, would else pull grpo down alone."""
    both = plan(task=[{"task": "chain"}, {"task": "product"}])
    easy, hard = (({s: curve(0.0, 0.0, end) for s in range(3)}) for end in (0.8, 0.1))
    table = {"chain/starter": {"grpo": easy, "gcpo": easy}, "product/starter": {"grpo": hard, "gcpo": {}}}
    found = summarise(both, table)
    assert found["scored"] == ["chain/starter"]
    for recipe in ("grpo", "gcpo"):
        assert found["scores"][recipe]["final"]["iqm"]["value"] == pytest.approx(0.8)
    tuning = {p: {r: {"chosen": {}, "edges": []} for r in ("grpo", "gcpo")} for p in table}
    shown = text(tables(found | {"plan": {"baseline": "grpo"}, "tuning": tuning})[0])
    assert (
        "1 of 2 problems; without a run of each: product/starter; the IQM of fewer than 4 runs is their mean" in shown
    )


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


def test_p_is_of_the_mean_over_problems_as_the_difference_is():
    """Three runs a point better on one problem, one that is five worse on another: the mean is two points worse."""
    both = plan(task=[{"task": "chain"}, {"task": "product"}])
    better = {"grpo": {s: curve(0, 0, 0.5) for s in range(3)}, "gcpo": {s: curve(0, 0, 0.51) for s in range(3)}}
    worse = {"grpo": {0: curve(0, 0, 0.5)}, "gcpo": {0: curve(0, 0, 0.45)}}
    row = summarise(both, {"chain/starter": better, "product/starter": worse})["comparisons"]["final"]["gcpo"]
    assert row["difference"]["value"] == pytest.approx(-0.02)
    assert (row["better"], row["worse"], row["pairs"]) == (3, 1, 4)
    signs = np.array(list(itertools.product([1, -1], repeat=4)))
    assert row["p"] == pytest.approx(np.mean(np.abs(signs @ [1, 1, 1, -15]) >= 12))


def test_holm_is_over_the_recipes_of_a_problem_not_over_the_problems():
    both = plan(task=[{"task": "chain"}, {"task": "product"}])
    runs = {"grpo": {s: curve(0, 0, 0.5) for s in range(3)}, "gcpo": {s: curve(0, 0, 0.6) for s in range(3)}}
    found = summarise(both, {"chain/starter": runs, "product/starter": runs})
    for problem in found["problems"].values():
        assert (
            problem["comparisons"]["final"]["gcpo"]["p_holm"] == problem["comparisons"]["final"]["gcpo"]["p"] == 0.25
        )


def test_runs_of_one_seed_that_begin_apart_are_named():
    """The policy was made anew between them, or one is evaluated on other prompts."""
    runs = {
        "grpo": {0: curve(0.2, 0, 0.5), 1: curve(0.3, 0, 0.5)},
        "gcpo": {0: curve(0.2, 0, 0.6), 1: curve(0.2, 0, 0.6)},
    }
    assert summarise(plan(), {"chain/starter": runs})["unpaired"] == ["chain/starter/gcpo/seed=1"]


def chosen(scores, failed=True, **change):
    """What is chosen where the candidate's final accuracy is ``scores[learning rate]``, None for no finished run."""
    p = plan(learning_rates=sorted(scores), tuning_seeds=[7, 8], rule="final", **change)

    def read(cell):
        score = scores[cell.candidate["learning_rate"]]
        return None if score is None or (score < 0 and cell.seed == 8) else curve(0, 0, abs(score))

    return choose(p, p.problems[0], p.recipes[0], read, lambda cell: failed)


def test_the_best_on_the_tuning_seeds_is_chosen_a_tie_goes_to_the_smaller():
    assert chosen({1e-4: 0.3, 2e-4: 0.5, 4e-4: 0.5})["chosen"] == {"learning_rate": 2e-4}
    assert chosen({1e-4: 0.3, 2e-4: 0.5, 4e-4: 0.4})["edges"] == []
    assert chosen({1e-4: 0.3, 2e-4: 0.5, 4e-4: 0.6})["edges"] == ["learning_rate"]


@pytest.mark.parametrize(
    ("widen", "best", "wanted", "rate", "edges"),
    [
        (0, 1e-3, [1e-4, 2e-4], 2e-4, ["learning_rate"]),
        (2, 2e-4, [1e-4, 2e-4, 4e-4], 2e-4, []),
        (2, 4e-4, [1e-4, 2e-4, 4e-4, 8e-4], 4e-4, []),
        (2, 1e-3, [1e-4, 2e-4, 4e-4, 8e-4], 8e-4, ["learning_rate"]),
        (2, 5e-5, [2.5e-5, 5e-5, 1e-4, 2e-4], 5e-5, []),
        (9, 3e-6, [1.5625e-6, 3.125e-6, 6.25e-6, 1.25e-5, 2.5e-5, 5e-5, 1e-4, 2e-4], 3.125e-6, []),
    ],
)
def test_the_grid_goes_on_where_its_end_is_chosen(widen, best, wanted, rate, edges):
    p = plan(learning_rates=[2e-4, 1e-4], tuning_seeds=[7, 8], rule="final", widen=widen)
    run = []

    def read(cell):
        lr = cell.candidate["learning_rate"]
        return curve(0, 0, 0.5 - abs(math.log(lr / best)) / 100) if cell in run else None

    def told():
        return choices(p, read, lambda cell: False)

    while (cells := tuning_cells(p, told())) != run:
        run = cells
    found = told()["chain/starter"]["gcpo"]
    assert [row["settings"]["learning_rate"] for row in found["candidates"]] == wanted  # to the last bit
    assert (found["chosen"], found["edges"], found["pending"]) == ({"learning_rate": rate}, edges, 0)
    assert {cell.directory for cell in run} <= {cell.directory for cell in p.every_cell()}


def test_a_grid_of_one_rate_and_one_whose_end_failed_do_not_go_on():
    assert chosen({1e-4: 0.3}, widen=3)["candidates"] == []
    assert len(chosen({1e-4: 0.3, 2e-4: 0.4, 4e-4: -0.9}, widen=3)["candidates"]) == 3


def test_a_candidate_with_a_failed_run_is_out():
    found = chosen({1e-4: 0.3, 2e-4: -0.9})
    assert found["chosen"] == {"learning_rate": 1e-4}
    assert [row["score"] for row in found["candidates"]] == [0.3, None]
    assert chosen({1e-4: None, 2e-4: None})["chosen"] is None


def test_nothing_is_chosen_while_runs_are_pending():
    found = chosen({1e-4: 0.3, 2e-4: -0.9}, failed=False)
    assert (found["chosen"], found["pending"], found["edges"]) == (None, 1, [])
    assert [row["score"] for row in found["candidates"]] == [0.3, None]
    assert chosen({1e-4: 0.3, 2e-4: 0.4}, failed=False)["pending"] == 0


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
    assert (ours["pairs: reached"], base["pairs: reached"]) == ("3 and 2 of 3", "")
    with (tmp_path / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def test_an_infinite_ratio_is_told_from_none(tables_of_two):
    ratio = tables_of_two["problems"]["chain/starter"]["cost_ratios"]["gcpo"]
    ratio |= {"steps": {"value": None, "ci95": [0.5, None]}, "tokens": None}
    tuning = {"chain/starter": {name: {"chosen": {}, "edges": []} for name in ("grpo", "gcpo")}}
    targets = tables(tables_of_two | {"plan": {"baseline": "grpo"}, "tuning": tuning})[-1]
    assert "  ∞ (0.5 to ∞)  0.5 (0.5 to 0.5)  -  " in text(targets)


def test_several_batches_of_responses_in_a_step_all_count():
    found = curves._generated([{"step": 1, "completions/mean_length": 5.0, "generations": 4}], 8, [0, 1])
    assert (found["samples"].tolist(), found["tokens"].tolist()) == ([0, 32], [0, 160])


@pytest.mark.parametrize(("parts", "responses", "tokens"), [("first_draws", 6, 27), ("dynamic", 12, 71)])
def test_what_is_drawn_in_parts_is_counted_as_drawn(parts, responses, tokens):
    plain = {"step": 1, "completions/mean_length": 5.0}
    drawn = {f"gcpo/{parts}/responses": responses, f"gcpo/{parts}/tokens": tokens}
    found = curves._generated([plain, plain | drawn | {"step": 2}], 8, [0, 1, 2])
    assert found["samples"].tolist() == [0, 8, 8 + responses]
    assert found["tokens"].tolist() == [0, 40, 40 + tokens]
