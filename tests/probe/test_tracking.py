"""Rank correlations and their bootstrap against scipy, resample by resample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gcpo.probe.tracking import Bootstrap, estimate, gap, kendall, spearman, spread_at_equal, tracking_table

# Few distinct values, so that there are ties, as entropies of eight responses have.
ranks = st.lists(st.integers(0, 4), min_size=6, max_size=12)


@given(ranks, st.integers(0, 1000))
def test_every_resample_has_scipys_coefficients(values, seed):
    random = np.random.default_rng(seed)
    x, y = np.array(values, dtype=float), random.normal(size=len(values))
    bootstrap = Bootstrap.draw(len(values), resamples=5, seed=seed)
    rho, tau = spearman(x, y, bootstrap), kendall(x, y, bootstrap)
    for r, weights in enumerate(bootstrap.weights.astype(int)):
        a, b = np.repeat(x, weights), np.repeat(y, weights)
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert rho[r] == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)
            assert tau[r] == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-9)


def test_the_first_row_is_the_sample_itself():
    bootstrap = Bootstrap.draw(7, resamples=3)
    assert (bootstrap.weights[0] == 1).all()
    assert (bootstrap.weights.sum(1) == 7).all()


def test_the_interval_covers_a_known_correlation():
    random, rho, hits = np.random.default_rng(0), 0.5, 0
    expected = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a bivariate normal
    for seed in range(40):
        x, noise = random.normal(size=(2, 150))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        low, high = estimate(spearman(x, y, Bootstrap.draw(150, 400, seed)))["ci95"]
        hits += low <= expected <= high
    assert hits >= 33  # 38 of 40 expected


def test_a_constant_signal_tracks_nothing():
    x, y = np.ones(8), np.arange(8.0)
    assert estimate(spearman(x, y, Bootstrap.draw(8, 10))) == {"value": None, "ci95": None}


def test_the_table_has_every_signal_and_target_and_paired_differences():
    random = np.random.default_rng(0)
    y = random.normal(size=60)
    signals = {"semantic_entropy": random.normal(size=60), "good": y + 0.1 * random.normal(size=60)}
    bootstrap = Bootstrap.draw(60, 200)
    table = tracking_table(signals, {"variance": y, "other": -y}, bootstrap)
    assert table["good"]["variance"]["spearman"]["value"] > 0.9
    assert table["good"]["other"]["kendall"]["value"] < -0.7
    difference = table["good"]["variance"]["minus_semantic_entropy"]
    assert difference == gap(signals["good"], signals["semantic_entropy"], y, bootstrap)
    assert difference["ci95"][0] > 0
    assert "minus_semantic_entropy" not in table["semantic_entropy"]["variance"]


def test_spread_at_equal_signal_is_the_factor_that_two_samples_share():
    random = np.random.default_rng(0)
    signal = np.repeat(np.arange(100.0), 8)
    decided = np.where(signal > 50, 5.0, 2.0)
    log = random.normal(scale=np.log(3), size=800)
    noise = np.exp(random.normal(scale=0.7, size=(2, 800)))
    assert spread_at_equal(signal, decided, decided)["value"] == pytest.approx(1.0)
    found = spread_at_equal(signal, decided * np.exp(log) * noise[0], decided * np.exp(log) * noise[1])
    assert found["ci95"][0] < 3.0 < found["ci95"][1]
    assert found["ci95"][1] / found["ci95"][0] < 1.5
    only_noise = spread_at_equal(signal, decided * noise[0], decided * noise[1])
    assert only_noise["ci95"][0] == 1.0
    assert spread_at_equal(np.arange(800.0), decided, decided)["value"] is None


@pytest.mark.parametrize("P", [49, 98, 103, 150])
def test_a_constant_signal_is_undefined_for_any_number_of_prompts(P):
    random = np.random.default_rng(0)
    assert estimate(spearman(np.ones(P), random.normal(size=P), Bootstrap.draw(P, 10)))["value"] is None


def test_prompts_whose_target_is_nan_do_not_count():
    random = np.random.default_rng(0)
    x, y, entropy = random.normal(size=(3, 40))
    y[:10] = np.nan
    table = tracking_table({"x": x, "semantic_entropy": entropy}, {"some": y}, Bootstrap.draw(40, 50))
    assert table["x"]["some"]["spearman"]["value"] == pytest.approx(stats.spearmanr(x[10:], y[10:]).statistic)
    assert gap(x, entropy, y, Bootstrap.draw(40, 50))["value"] is not None
    nothing = tracking_table({"x": x}, {"none": np.full(40, np.nan)}, Bootstrap.draw(40, 50))
    assert nothing["x"]["none"]["spearman"]["value"] is None
