import pytest

from gcpo.tasks import get_task
from gcpo.tasks.noise import Noisy
from gcpo.tasks.posed import Posed
from gcpo.tasks.rewards import parse

TASK = get_task("chain")
EXAMPLES = TASK.examples("train", 2000, 0)


def grades(share, seed=0):
    task = Noisy(TASK, share, seed)
    return [task.grade(said, e) for e in EXAMPLES for said in (e.solution, f"{e.solution}0", "?")]


CLEAN = grades(0.0)


def flipped(found):
    return [a != b for a, b in zip(found, CLEAN, strict=True)]


def test_so_many_are_flipped_of_the_right_as_of_the_wrong():
    found = flipped(grades(0.2))
    for kind in (found[0::3], found[1::3], found[2::3]):
        assert sum(kind) / len(kind) == pytest.approx(0.2, abs=0.03)  # three standard errors
    assert not any(flipped(grades(0.0)))
    assert all(flipped(grades(1.0)))


def test_the_same_seed_flips_the_same_another_others_and_more_noise_flips_more():
    assert grades(0.2, seed=1) == grades(0.2, seed=1) != grades(0.2, seed=2)
    assert all(more or not less for less, more in zip(flipped(grades(0.1)), flipped(grades(0.3)), strict=True))


def test_the_score_stays_clean_and_so_do_the_problems():
    task = Noisy(TASK, 1.0, 0)
    assert task.score(EXAMPLES[0].solution, EXAMPLES[0]) == 1.0
    assert task.examples("test", 3, 0) == TASK.examples("test", 3, 0)
    assert task.max_new_tokens == TASK.max_new_tokens


def test_a_graded_reward_is_mirrored_in_its_range():
    stories = get_task("stories")
    [example] = stories.examples("train", 1, 0)
    said = f"{example.answer} indeed"
    grade = stories.grade(said, example)
    assert 0 < grade < 1
    assert Noisy(stories, 1.0, 0).grade(said, example) == pytest.approx(1 - grade)
    fined = Posed(TASK, parse(["task", "-0.5*format"], TASK))  # from -0.5 to 1
    for said in (EXAMPLES[0].solution, "?"):
        clean = fined.grade(said, EXAMPLES[0])
        assert Noisy(fined, 1.0, 0).grade(said, EXAMPLES[0]) == pytest.approx(0.5 - clean)
