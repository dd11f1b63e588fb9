"""From a file to cells: who chooses among what, what stands beside what, and what is refused."""

import re
import tomllib
from pathlib import Path

import pytest

from gcpo.experiment.bench.plan import parse, read
from gcpo.experiment.bench.tuning import choices, tuning_cells
from gcpo.experiment.settings import UsageError

SMALL = {"task": [{"task": "chain"}], "recipe": [{"recipe": "grpo"}, {"recipe": "gcpo"}]}
ROOT = Path(__file__).parents[3]
CONFIGS = [*ROOT.glob("benchmarks/*.toml"), ROOT / "src/gcpo/experiment/bench/default.toml"]


def tuned(plan):
    """What runs first, before there is a curve."""
    return tuning_cells(plan, choices(plan, lambda cell: None, lambda cell: False))


def test_the_paired_runs_stand_side_by_side_and_only_what_has_a_choice_is_tuned():
    recipes = [{"recipe": "grpo"}, {"recipe": "seed-grpo", "tune": {"gcpo_alpha": [1.0, 0.1]}}]
    plan = parse(SMALL | {"recipe": recipes, "tuning_seeds": [7, 8], "learning_rates": [1e-4]})
    cells = tuned(plan)
    assert {cell.recipe.name for cell in cells} == {"seed-grpo"}
    assert [(cell.seed, cell.candidate["gcpo_alpha"]) for cell in cells] == [(7, 0.1), (7, 1.0), (8, 0.1), (8, 1.0)]
    assert plan.baseline == "grpo"


def test_what_is_told_later_wins_and_every_recipe_is_told_the_same_but_for_itself():
    plan = parse(
        SMALL
        | {
            "steps": 9,
            "settings": {"eval_seed": 3, "save_steps": 1},
            "model": [{"name": "small", "model": "starter", "save_steps": 2, "learning_rates": [1e-5]}],
            "task": [{"task": "chain", "save_steps": 3, "max_steps": 5}],
        }
    )
    [first, second] = (plan.cell(plan.problems[0], recipe, {"learning_rate": 1e-5}, 4) for recipe in plan.recipes)
    assert plan.candidates(plan.problems[0], plan.recipes[0]) == [{"learning_rate": 1e-5}]
    assert first.settings.trainer | {"save_steps": 3, "max_steps": 5, "learning_rate": 1e-5} == first.settings.trainer
    assert (first.settings.seed, first.settings.eval_seed) == (4, 3)
    assert second.settings.as_dict() == first.settings.as_dict() | {"recipe": "gcpo"}
    assert str(first.directory) == "chain/small/grpo/lr=1e-05/seed=4"


def test_what_is_chosen_by_is_evaluated_on_other_prompts_than_what_is_reported():
    plan = parse(SMALL | {"settings": {"eval_seed": 3}, "tuning_seeds": [7], "learning_rates": [1e-4, 2e-4]})
    assert {cell.settings.eval_seed for cell in tuned(plan)} == {4}
    reported = [plan.cell(plan.problems[0], r, {"learning_rate": 1e-4}, s) for r in plan.recipes for s in plan.seeds]
    assert {cell.settings.eval_seed for cell in reported} == {3}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_are_shipped_can_be_read(path):
    plan = read(path)
    assert len(plan.seeds) >= 3
    directories = [cell.directory for cell in plan.every_cell()]
    assert len(set(directories)) == len(directories)


def test_the_file_in_the_guide_can_be_read():
    [block] = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs/bench.md").read_text(), re.MULTILINE | re.DOTALL)
    plan = parse(tomllib.loads(block))
    told = [next(c.settings for c in plan.every_cell() if c.recipe is recipe) for recipe in plan.recipes]
    assert [s.host for s in told] == ["gcpo", "gcpo", "trl"]


REFUSED = [
    ({"seed": [1]}, "a bench has no key 'seed'; did you mean 'seeds'"),
    ({"seeds": [1, 1]}, "seeds must be a list of different whole numbers"),
    ({"seeds": [True]}, "seeds must be a list of different whole numbers"),
    ({"learning_rates": [0]}, "learning_rates must be a list of different positive numbers"),
    ({"seeds": []}, "must not be empty"),
    ({"seeds": [1, 2], "tuning_seeds": [2]}, "tuning_seeds must not be among seeds, found 2 in both"),
    ({"learning_rates": [1e-4, 2e-4]}, "has several learning rates to choose from: give tuning_seeds"),
    ({"task": []}, "a bench needs tasks, found none"),
    ({"task": {"task": "chain"}}, r"write \[\[task\]\]"),
    ({"task": [{"task": "chain"}] * 2}, "tasks need names that differ, found 'chain' twice"),
    ({"task": [{"reward_noise": 0.1}]}, "must have task or name, found reward_noise"),
    ({"task": [{"task": "chain", "name": "../x"}]}, "names begin with a letter"),
    ({"task": [{"task": "chain", "name": ".."}]}, r"names begin with .*, found '\.\.' of a task"),
    ({"recipe": [{"recipe": "grpo", "eval_seed": 7}]}, "sets eval_seed, which is to be the same for all recipes"),
    ({"recipe": [{"recipe": "grpo", "model": "x"}]}, "sets model, which is to be the same for all recipes"),
    ({"recipe": [{"recipe": "grpo", "tune": {"eval_prompts": [8, 9]}}]}, "sets eval_prompts, which is to be the same"),
    ({"task": [{"task": "chain", "target": "high"}]}, "must be an accuracy, found 'high'"),
    ({"recipe": [{"recipe": "grpo", "seed": 1}]}, "sets seed, which the bench sets itself"),
    ({"recipe": [{"recipe": "grpo", "tune": {"gcpo_alpha": []}}]}, "must map settings to lists"),
    ({"recipe": [{"recipe": "grpo", "tune": {"learning_rate": [1]}}]}, "sets learning_rate, which the bench sets"),
    ({"recipe": [{"recipe": "grpo", "tune": {"gcpo_alpha": [1, "x"]}}]}, r"different numbers, .* found \[1, 'x'\]"),
    ({"recipe": [{"recipe": "grpo", "tune": {"gcpo_alpha": [1, 1.0]}}]}, "must give gcpo_alpha different numbers"),
    ({"recipe": [{"recipe": "grpo", "tune": {"reward": [["math"]]}}]}, "must give reward different numbers"),
    ({"learning_rates": [float("nan")]}, "learning_rates must be a list of different positive numbers"),
    ({"widen": -1}, "widen must be 0 or more, found -1"),
    ({"widen": 0.5}, "widen must be a whole number, found 0.5"),
    ({"rule": "best"}, "rule must be area or final, found 'best'"),
    ({"baseline": "rloo"}, "baseline must be one of the recipes grpo, gcpo, found 'rloo'"),
    ({"settings": 3}, "settings must be a table of settings"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_no_bench_has_is_refused_in_a_sentence(change, said):
    with pytest.raises(UsageError, match=said):
        parse(SMALL | change)


def test_rates_that_differ_in_the_seventh_digit_have_directories_of_their_own():
    plan = parse(SMALL | {"learning_rates": [1e-4, 1.0000001e-4], "tuning_seeds": [7]})
    cells = list(plan.every_cell())
    assert len({cell.directory for cell in cells}) == len(cells)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.toml").write_text("steps = ")
    for path in (tmp_path / "x.toml", tmp_path / "y.toml"):
        with pytest.raises(UsageError, match="cannot be read"):
            read(path)


def test_a_wrong_value_names_its_cell():
    plan = parse(SMALL | {"task": [{"task": "chain", "reward_noise": 2}]})
    with pytest.raises(UsageError, match="grpo on chain/starter: reward_noise must be a share"):
        _ = next(plan.every_cell()).settings
