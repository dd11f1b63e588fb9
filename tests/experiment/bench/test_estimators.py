"""Statistics against closed forms, enumeration, and rliable where it is installed."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import mannwhitneyu, norm, trim_mean
from scipy.stats import t as student

from gcpo.experiment.bench.estimators import bootstrap, difference, holm, improvement, iqm, mean

RNG = np.random.default_rng(0)


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end_of_all_runs_together():
    strata = [np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[4.0], [5.0], [6.0], [100.0]])]
    assert bootstrap(strata, iqm)["value"] == np.mean([2, 3, 4, 5])
    assert bootstrap(strata, mean)["value"] == pytest.approx(np.mean([1.5, 28.75]))


def test_strata_of_different_sizes_weigh_the_same():
    strata = [np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]] * 9)]
    assert bootstrap(strata, mean)["value"] == bootstrap(strata, difference)["value"] == 0.5


def test_the_probability_of_improvement_is_mann_whitneys_statistic():
    pairs = np.round(RNG.normal(size=(9, 2)), 1)  # with ties
    u = mannwhitneyu(pairs[:, 0], pairs[:, 1]).statistic
    assert bootstrap([pairs], improvement)["value"] == pytest.approx(u / 81)
    assert bootstrap([pairs[:, [0, 0]]], improvement)["value"] == 0.5


def test_the_bootstrap_draws_seeds_within_strata():
    """Two values, drawn twice: of the mean a quarter is the least and a quarter the largest; strata never mix."""
    low, high = bootstrap([np.array([[0.0], [1.0]]), np.array([[10.0], [10.0]])], mean)["ci95"]
    assert (low, high) == (5.0, 5.5)


def test_runs_of_one_seed_are_drawn_together():
    """Paired differences are all 1, however the seeds vary."""
    base = RNG.normal(size=8)
    assert bootstrap([np.stack([base + 1, base], 1)], difference)["ci95"] == pytest.approx([1, 1])


def test_one_seed_has_no_interval():
    assert bootstrap([np.array([[0.3]])], mean) == {"value": 0.3, "ci95": None}


@pytest.mark.parametrize("n", [5, 10])
def test_percentile_intervals_of_a_few_seeds_cover_as_the_module_says(n):
    """Their ends are the normal quantiles of a spread that is too small by (n - 1) / n."""
    reach = norm.ppf(0.975) * np.sqrt((n - 1) / n)
    expected = student.cdf(reach, n - 1) - student.cdf(-reach, n - 1)
    assert expected == pytest.approx({5: 0.845, 10: 0.904}[n], abs=0.002)
    samples = np.random.default_rng(1).normal(size=(400, n, 1))
    ends = [bootstrap([sample], mean, 400)["ci95"] for sample in samples]
    assert np.mean([low <= 0 <= high for low, high in ends]) == pytest.approx(expected, abs=0.05)


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_the_closed_test_of_bonferroni(p):
    """A hypothesis falls when every intersection that contains it does, each by Bonferroni."""
    m = range(len(p))
    subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(m, size)]
    closed = [min(1.0, max(len(s) * min(p[j] for j in s) for s in subsets if i in s)) for i in m]
    assert holm(p) == pytest.approx(closed)


def test_the_interval_is_that_of_scipys_bootstrap_with_a_sample_a_stratum():
    samples = RNG.normal(size=(3, 10))

    def of_all(*drawn, axis):
        return trim_mean(np.concatenate(drawn, axis), 0.25, axis=axis)

    theirs = scipy_bootstrap(
        samples, of_all, n_resamples=20_000, method="percentile", vectorized=True, rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap([sample[:, None] for sample in samples], iqm, 20_000)
    assert found["ci95"] == pytest.approx([theirs.low, theirs.high], abs=0.02)


def test_point_estimates_are_rliables():
    metrics = pytest.importorskip("rliable.metrics")
    x, y = RNG.normal(0.2, 1, (10, 3)), RNG.normal(size=(10, 3))  # (runs, tasks)
    strata = [np.stack(columns, 1) for columns in zip(x.T, y.T, strict=True)]
    expected = {iqm: metrics.aggregate_iqm(x), mean: metrics.aggregate_mean(x)}
    expected |= {improvement: metrics.probability_of_improvement(x, y)}
    for ours, value in expected.items():
        assert bootstrap(strata, ours)["value"] == pytest.approx(value)
