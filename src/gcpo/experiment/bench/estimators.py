"""Statistics of a few runs on several problems, after Agarwal et al., arXiv 2108.13264.

    IQM        mean of the middle half of all runs: scipy's trimmed mean at a quarter
    P(X > Y)   mean over problems of the share of pairs of runs in which X is better, a tie counting half
    interval   percentile bootstrap, stratified: the seeds of each problem are drawn anew with replacement, the same
               draw for all that is compared, since runs of one seed are paired
    Holm       adjusted p-values: the i-th smallest of m times m - i + 1, never decreasing

A stratum is (n, k): n seeds, k numbers each. With few seeds percentile intervals are too narrow: of 5 normal values a
95 % interval of the mean covers it about 84 times of 100, of 10 about 90 times.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import trim_mean

Strata = Sequence[Float[np.ndarray, "n k"]]
Draws = list[Float[np.ndarray, "R n k"]]
"""Strata, R times each."""
Statistic = Callable[[Draws], Float[np.ndarray, " R"]]
RESAMPLES = 2000


def mean(draws: Draws) -> Float[np.ndarray, " R"]:
    """Mean over strata of the mean of the first number."""
    return np.asarray(np.mean([d[..., 0].mean(-1) for d in draws], axis=0))


def iqm(draws: Draws) -> Float[np.ndarray, " R"]:
    """Interquartile mean of the first number over all strata."""
    return np.asarray(trim_mean(np.concatenate([d[..., 0] for d in draws], -1), 0.25, axis=-1))


def difference(draws: Draws) -> Float[np.ndarray, " R"]:
    """Mean over strata of the mean of the first number minus the second."""
    return np.asarray(np.mean([(d[..., 0] - d[..., 1]).mean(-1) for d in draws], axis=0))


def improvement(draws: Draws) -> Float[np.ndarray, " R"]:
    """Probability that the first number of one seed exceeds the second of any, mean over strata."""
    return np.asarray(np.mean([_exceeds(d[..., :, None, 0], d[..., None, :, 1]) for d in draws], axis=0))


def _exceeds(first: Float[np.ndarray, "R n 1"], second: Float[np.ndarray, "R 1 n"]) -> Float[np.ndarray, " R"]:
    return np.asarray(((first > second) + 0.5 * (first == second)).mean((-2, -1)))


def bootstrap(strata: Strata, statistic: Statistic, resamples: int = RESAMPLES) -> dict[str, object]:
    """``value`` of a statistic and ``ci95``; None where no stratum has a second seed."""
    value = float(statistic([stratum[None] for stratum in strata])[0])
    if all(len(stratum) < 2 for stratum in strata):
        return {"value": value, "ci95": None}
    rng = np.random.default_rng(0)
    drawn = [s[rng.integers(len(s), size=(resamples, len(s)))] for s in strata]
    low, high = np.quantile(statistic(drawn), [0.025, 0.975])
    return {"value": value, "ci95": [float(low), float(high)]}


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for being several, in the order given."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted.tolist()
