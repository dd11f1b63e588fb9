"""Estimators against enumeration, tests against closed forms, intervals against how often they cover."""

import itertools
import tracemalloc
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from gcpo.experiment import statistics
from gcpo.experiment.statistics import estimate, interval, majority, paired, pass_at_k, sign_flips


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_response(case):
    n, right, k = case
    drawn = [any(i < right for i in chosen) for chosen in itertools.combinations(range(n), k)]
    assert pass_at_k(n, right, k) == pytest.approx(sum(drawn) / len(drawn))


def test_pass_at_k_is_unbiased():
    rng, p, n, k = np.random.default_rng(0), 0.3, 8, 4
    counts = rng.binomial(n, p, size=20_000)
    assert np.mean([pass_at_k(n, int(c), k) for c in counts]) == pytest.approx(1 - (1 - p) ** k, abs=0.005)


@pytest.mark.parametrize("k", [0, 5])
def test_k_beyond_the_responses_is_refused(k):
    with pytest.raises(ValueError, match="k must be 1 to 4"):
        pass_at_k(4, 2, k)


@pytest.mark.parametrize(
    ("answers", "right", "value"),
    [
        (["7", "7", "8"], [True, True, False], 1.0),
        (["7", "8", "8"], [True, False, False], 0.0),
        (["7", "8"], [True, False], 0.5),
        (["7", "8", "9", "9", "7"], [True, False, False, False, True], 0.5),
        (["7"], [False], 0.0),
    ],
)
def test_majority(answers, right, value):
    assert majority(answers, right) == value
    assert majority(answers[::-1], right[::-1]) == value


@pytest.mark.parametrize("whole", [[-1, -5, 2, 6, -2], [3, 3, -1, 2, 1], [1, 1, 1, 1, -4], [7, -2, 0, 1, 5]])
def test_sums_that_are_equal_but_for_rounding_are_as_extreme(whole):
    """Decimal fractions are none in binary: their sums differ in the last digits, those of whole numbers do not."""
    signs = np.array(list(itertools.product([1, -1], repeat=len(whole))))
    share = np.mean(np.abs(signs @ whole) >= abs(sum(whole)))
    assert sign_flips(np.array(whole) / 100) == pytest.approx(share)


@pytest.mark.parametrize("n", [2, 7, 12])
def test_without_ties_flipping_signs_is_scipys_permutation_test(n):
    difference = np.random.default_rng(n).normal(0.3, 1, n)
    theirs = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=10**5)
    assert sign_flips(difference) == pytest.approx(theirs.pvalue)


def test_mcnemar_is_the_binomial_test_of_the_prompts_that_differ():
    first = np.array([1.0] * 9 + [0.0] * 2 + [1.0] * 5)
    second = np.array([0.0] * 9 + [1.0] * 2 + [1.0] * 5)
    found = paired(first, second)
    assert (found["first"], found["second"], found["test"]) == (9, 2, "McNemar, exact")
    assert found["p"] == pytest.approx(2 * sum(comb(11, i) for i in range(3)) / 2**11)
    assert found["difference"] == pytest.approx(7 / 16)
    low, high = found["ci95"]
    assert low < found["difference"] < high


def test_signs_are_permuted_where_values_are_no_shares_of_one():
    difference = np.array([0.25, 0.5, 0.25, 0.75, 0.5, 0.25])
    found = paired(difference + 0.1, np.full(6, 0.1))
    assert found["test"] == "permutation of signs"
    assert found["p"] == pytest.approx(2 / 2**6), "only all plus and all minus are as extreme"


@pytest.mark.parametrize(("statistic", "n"), [(sign_flips, 1500), (interval, 7500)])
def test_resamples_are_not_all_held_at_once_and_their_number_at_a_time_changes_nothing(statistic, n, monkeypatch):
    values = np.random.default_rng(0).normal(0.01, 1, size=n)
    tracemalloc.start()
    found = statistic(values)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**27  # all resamples have 15 million numbers of 8 bytes, before anything is made of them
    monkeypatch.setattr(statistics, "_AT_ONCE", 10**9)
    assert statistic(values) == found


def test_no_difference_is_no_certainty():
    same = np.array([0.0, 1.0, 1.0])
    assert paired(same, same) == {
        "difference": 0.0, "ci95": None, "p": 1.0, "test": "McNemar, exact", "first": 0, "second": 0
    }  # fmt: skip
    assert paired(same + 0.5, same + 0.5)["p"] == 1.0


def test_false_alarms_are_as_rare_as_they_say():
    rng = np.random.default_rng(1)
    alarms = [paired(*rng.binomial(4, 0.4, size=(2, 60)) / 4)["p"] <= 0.05 for _ in range(60)]
    assert sum(alarms) <= 8  # 3 expected


@pytest.mark.parametrize("values", [np.zeros(20), np.ones(20), np.array([0.0, 1.0] * 10), np.full(20, 0.5)])
def test_an_estimate_is_never_certain(values):
    found = estimate(values)
    low, high = found["ci95"]
    assert low < high
    assert low <= found["value"] <= high


def test_the_interval_of_equal_values_is_a_point():
    assert interval(np.full(5, 0.25)) == [0.25, 0.25]
