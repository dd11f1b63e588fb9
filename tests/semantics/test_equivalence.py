"""When answers mean the same, and the labels that follow."""

import sys
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcpo.semantics import EQUIVALENCES, answer_labels, equal_math
from gcpo.signals import semantic_entropy


def test_labels_are_the_places_of_first_responses_in_the_batch():
    labels = answer_labels(["44", " 44.", "45", "44", "45", "45"], 3)
    assert labels.tolist() == [[0, 0, 2], [3, 4, 4]]


@pytest.mark.parametrize("equivalence", EQUIVALENCES)
def test_a_missing_answer_stands_alone(equivalence):
    assert answer_labels([None, None, "1", "1"], 4, equivalence).tolist() == [[0, 1, 2, 2]]


def test_equivalences_get_coarser():
    answers = ["1/2", "0.5", "Half", "half", "1/2"]
    meanings = [answer_labels(answers, 5, equivalence).tolist()[0] for equivalence in ("exact", "folded", "math")]
    assert meanings == [[0, 1, 2, 3, 0], [0, 1, 2, 2, 0], [0, 0, 2, 2, 0]]


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("72", "72.0", True),
        ("4000", "4,000", True),
        ("4{,}000", "4000", True),
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{1}{2}", r"\dfrac{2}{4}", True),
        ("1500000", "1.5e6", True),
        (r"\$5", "5", True),
        ("x=5", "5", True),
        ("{1,2}", "{2,1}", True),
        ("x^2-1", "(x-1)(x+1)", True),
        ("1 < x < 2", "(1,2)", True),
        ("(1,2)", "(2,1)", False),
        (r"\Delta", r"\pi", False),
        ("3", "-3", False),
        ("10", "0.1", False),
        ("no", "on", False),
        ("Paris", "pairs", False),
        ("Paris", " paris.", True),
        ("yes", "5", False),
        ("", "5", False),
        ("}{", "5", False),
    ],
)
def test_equality_as_mathematics_has_no_direction(a, b, equal):
    assert equal_math(a, b) is equal
    assert equal_math(b, a) is equal


def test_a_tower_of_powers_is_given_up():
    assert not equal_math("9^{9^{9}}", "5")


PERMUTED = ["12", "12%", "0.12", r"\frac{12}{100}", "13", "Paris", "pairs", None]


@given(st.permutations(range(len(PERMUTED))))
def test_meanings_do_not_depend_on_the_order(order):
    labels = answer_labels([PERMUTED[i] for i in order], len(PERMUTED), "math")[0]
    classes = {frozenset(order[i] for i in (labels == label).nonzero().flatten()) for label in labels}
    assert classes == {frozenset({0, 1, 2, 3}), frozenset({4}), frozenset({5}), frozenset({6}), frozenset({7})}


@given(st.lists(st.text("12. /x", max_size=4), min_size=4, max_size=4))
def test_labels_are_a_partition_that_signals_take(answers):
    for equivalence in EQUIVALENCES:
        labels = answer_labels(answers, 4, equivalence)
        assert (labels <= torch.arange(4)).all()
        assert torch.equal(labels[0][labels[0]], labels[0])
        assert 0 <= semantic_entropy(labels).item() <= 1 + 1e-6


def test_no_answers_make_no_groups():
    assert answer_labels([], 4).shape == (0, 4)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="answers must come in groups of 4, found 3"):
        answer_labels(["1", "2", "3"], 4)
    with pytest.raises(ValueError, match="equivalence must be one of exact, folded, math, found 'maths'"):
        answer_labels(["1"], 1, "maths")


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ImportError, match=r'pip install "gcpo\[train\]"'):
        answer_labels(["101/7", "7/101"], 2, "math")


def test_other_threads_are_told_why_they_cannot():
    caught = []

    def label():
        try:
            answer_labels(["103/7", "7/103"], 2, "math")
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=label, name="worker")
    thread.start()
    thread.join()
    assert "main thread gets, found thread 'worker'" in caught[0]
