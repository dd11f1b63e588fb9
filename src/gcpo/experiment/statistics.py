"""What graded responses say of a model, and of two models on the same prompts; n prompts, one value each.

pass@k     1 - C(N - c, k) / C(N, k), of N responses c right: unbiased     Chen et al., arXiv 2107.03374
majority   share of right ones among the most frequent answers             Wang et al., arXiv 2203.11171
paired     exact McNemar test where values are 0 or 1, else a permutation test of the mean difference; the interval
           is a percentile bootstrap over prompts
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import product
from math import comb
from typing import Any

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, " n"]
RESAMPLES = 2000
_EXACT = 13
"""Differences whose signs are all tried: 8192 ways."""
_AT_ONCE = 2**20
"""Numbers that resamples have at once: scipy would else hold all of them, gigabytes of a large benchmark."""


def pass_at_k(responses: int, right: int, k: int) -> float:
    """Chance that at least one of k of the responses, drawn without replacement, is right."""
    if not 1 <= k <= responses or not 0 <= right <= responses:
        raise ValueError(f"k must be 1 to {responses}, the number of responses, found {k}.")
    return 1 - comb(responses - right, k) / comb(responses, k)


def majority(answers: Sequence[Hashable], right: Sequence[bool]) -> float:
    """Share of right responses among those with the most frequent answer; over several as frequent, the mean."""
    times = Counter(answers)
    most = max(times.values())
    chosen = [r for answer, r in zip(answers, right, strict=True) if times[answer] == most]
    return sum(chosen) / len(chosen)


def wilson(share: float, n: int) -> list[float]:
    """95 % Wilson interval of a share of n."""
    from scipy.stats import binomtest

    result = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return [float(result.low), float(result.high)]


def interval(values: Values) -> list[float]:
    """95 % percentile bootstrap interval of the mean, over prompts; a point if all values are equal."""
    from scipy.stats import bootstrap

    if np.ptp(values) == 0:
        return [float(values.mean())] * 2
    how: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": _batch(values), "method": "percentile"}
    result = bootstrap((values,), np.mean, rng=np.random.default_rng(0), **how)
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def estimate(values: Values) -> dict[str, Any]:
    """``value``, the mean, and ``ci95``: Wilson's for values of 0 and 1 and for equal ones, else a bootstrap's."""
    share = float(values.mean())
    binary = bool(np.isin(values, (0.0, 1.0)).all()) or np.ptp(values) == 0
    return {"value": share, "ci95": wilson(share, len(values)) if binary else interval(values)}


def paired(first: Values, second: Values) -> dict[str, Any]:
    """First minus second on the same prompts.

    Returns:
        ``difference`` of the means with ``ci95`` (None where no prompt differs, which is not certainty), ``p`` and
        ``test``; how many prompts are better in each, ``first`` and ``second``.
    """
    difference = first - second
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    binary = bool(np.isin(np.concatenate([first, second]), (0.0, 1.0)).all())
    return {
        "difference": float(difference.mean()),
        "ci95": interval(difference) if np.ptp(difference) else None,
        "p": _mcnemar(better, worse) if binary else sign_flips(difference),
        "test": "McNemar, exact" if binary else "permutation of signs",
        "first": better,
        "second": worse,
    }


def _mcnemar(better: int, worse: int) -> float:
    """Of the prompts on which the two differ, half should favour each."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def sign_flips(difference: Values) -> float:
    """p-value of a mean difference, two-sided: with either sign as likely, exact up to 13 differences."""
    from scipy.stats import permutation_test

    if not difference.any() or len(difference) == 1:
        return 1.0
    if len(difference) <= _EXACT:
        signs = np.array(list(product((1, -1), repeat=len(difference))))
        rounding = 1e-9 * np.abs(difference).sum()  # sums that are equal but for it tie, which scipy's count misses
        return float(np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - rounding))
    how: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 9999, "batch": _batch(difference)}
    return float(permutation_test((difference,), np.mean, rng=np.random.default_rng(0), **how).pvalue)


def _batch(values: Values) -> int:
    """Resamples at a time."""
    return max(1, _AT_ONCE // len(values))
