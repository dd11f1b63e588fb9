"""Tracking: how well each signal ranks prompts by the true variance of their gradient, with intervals.

P prompts; a signal and a target are a number a prompt. Rank correlations are Spearman's rho and Kendall's tau-b; their
intervals, and those of differences between signals, come from one bootstrap over prompts (percentiles), so differences
are paired.

A resample is a weight w_i, how often prompt i was drawn. With s_ij = sign(x_i - x_j) everything is a matrix product:

    rank_i = sum_j w_j (1 + s_ij) / 2                                 then rho = weighted correlation of ranks
    tau_b  = w^T (s^x s^y) w / sqrt(w^T |s^x| w  w^T |s^y| w)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Array = np.ndarray


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of P prompts as weights; the first is the sample itself."""

    weights: Float[Array, "R P"]

    @classmethod
    def draw(cls, prompts: int, resamples: int = 1000, seed: int = 0) -> "Bootstrap":
        """``resamples`` draws of as many prompts with replacement."""
        counts = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
        return cls(np.concatenate([np.ones((1, prompts)), counts]))

    def of(self, kept: Bool[Array, " P"]) -> "Bootstrap":
        """The same draws, of some prompts only."""
        return Bootstrap(self.weights[:, kept])


def spearman(x: Float[Array, " P"], y: Float[Array, " P"], bootstrap: Bootstrap) -> Float[Array, " R"]:
    """Spearman's rho on every resample; NaN where a side is constant."""
    w, signs = bootstrap.weights, (_signs(x), _signs(y))
    a, b = (w @ ((1 + s) / 2).T for s in signs)
    rho = _correlation(a, b, w)
    varies = [np.einsum("rp,rp->r", w @ abs(s), w) > 0 for s in signs]
    return np.where(varies[0] & varies[1], rho, np.nan)


def kendall(x: Float[Array, " P"], y: Float[Array, " P"], bootstrap: Bootstrap) -> Float[Array, " R"]:
    """Kendall's tau-b on every resample; NaN where a side is constant."""
    w, sx, sy = bootstrap.weights, _signs(x), _signs(y)
    concordant, by_x, by_y = (np.einsum("rp,rp->r", w @ m, w) for m in (sx * sy, abs(sx), abs(sy)))
    with np.errstate(invalid="ignore"):
        return np.asarray(concordant / np.sqrt(by_x * by_y))


def _signs(x: Float[Array, " P"]) -> Float[Array, "P P"]:
    return np.asarray(np.sign(x[:, None] - x[None, :]))


def _correlation(a: Float[Array, "R P"], b: Float[Array, "R P"], w: Float[Array, "R P"]) -> Float[Array, " R"]:
    share = w / np.maximum(w.sum(1, keepdims=True), 1e-300)
    a, b = (v - (share * v).sum(1, keepdims=True) for v in (a, b))
    with np.errstate(invalid="ignore"):
        return np.asarray((share * a * b).sum(1) / np.sqrt((share * a * a).sum(1) * (share * b * b).sum(1)))


def estimate(values: Float[Array, " R"]) -> dict[str, Any]:
    """Value on the sample and 95 % interval over the resamples; None where it is not defined."""
    if not len(values) or not np.isfinite(values[0]):
        return {"value": None, "ci95": None}
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return {"value": float(values[0]), "ci95": [float(low), float(high)]}


def tracking_table(
    signals: Mapping[str, Float[Array, " P"]],
    targets: Mapping[str, Float[Array, " P"]],
    bootstrap: Bootstrap,
    reference: str = "semantic_entropy",
) -> dict[str, dict[str, dict[str, Any]]]:
    """Signals by targets: ``spearman``, ``kendall``, and the paired difference of rho to the reference signal.

    Prompts of which a target is NaN do not count for it.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for target, values in targets.items():
        kept = np.isfinite(values)
        y, drawn = values[kept], bootstrap.of(kept)
        base = spearman(signals[reference][kept], y, drawn) if reference in signals else None
        for name, x in signals.items():
            rho = spearman(x[kept], y, drawn)
            cell = {"spearman": estimate(rho), "kendall": estimate(kendall(x[kept], y, drawn))}
            if base is not None and name != reference:
                cell[f"minus_{reference}"] = estimate(rho - base)
            table.setdefault(name, {})[target] = cell
    return table


def gap(
    better: Float[Array, " P"], plain: Float[Array, " P"], target: Float[Array, " P"], bootstrap: Bootstrap
) -> dict[str, Any]:
    """What one signal tracks more than another: the difference of their rho with the target, paired.

    Prompts of which the target is NaN do not count.
    """
    kept = np.isfinite(target)
    drawn = bootstrap.of(kept)
    return estimate(spearman(better[kept], target[kept], drawn) - spearman(plain[kept], target[kept], drawn))


def spread_at_equal(
    signal: Float[Array, " P"], target: Float[Array, " P"], again: Float[Array, " P"], decimals: int = 6
) -> dict[str, Any]:
    """By what factor a target truly differs between prompts that a signal calls equal.

    exp of the root of the covariance of log target and log again within the strata of equal signal, where ``again`` is
    the same target from an independent sample: what only one sample has, its noise, does not count. 1 if the signal
    decides the target. Strata of one prompt say nothing; targets of 0 are left out. The interval is from the
    jackknife over prompts: a bootstrap would draw a prompt twice into its stratum, where it does not vary.
    """
    kept = (target > 0) & (again > 0) & np.isfinite(signal)
    a, b = np.log(target[kept]), np.log(again[kept])
    strata = np.unique(np.round(signal[kept], decimals), return_inverse=True)[1] if kept.any() else np.zeros(0, int)
    whole = _covariance_within(strata, a, b)
    if not np.isfinite(whole):
        return {"value": None, "ci95": None}
    P = len(a)
    left_out = np.array([_covariance_within(*(np.delete(v, i) for v in (strata, a, b))) for i in range(P)])
    error = np.sqrt((P - 1) / P * ((left_out - left_out.mean()) ** 2).sum())
    low, value, high = (float(np.exp(np.sqrt(max(whole + z * error, 0)))) for z in (-1.96, 0, 1.96))
    return {"value": value, "ci95": [low, high] if np.isfinite(error) else None}


def _covariance_within(strata: Any, a: Float[Array, " P"], b: Float[Array, " P"]) -> float:
    """Pooled covariance inside strata; NaN where none has two members."""
    size = np.bincount(strata)
    size = np.where(size > 0, size, 1)
    a, b = (v - (np.bincount(strata, v, minlength=len(size)) / size)[strata] for v in (a, b))
    freedom = (size - 1).sum()
    return float((a * b).sum() / freedom) if freedom > 0 else np.nan
