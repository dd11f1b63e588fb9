"""Calibration: what the dispersion of the rewards makes of an uncertainty signal.

Source: that reward dispersion (RD) calibrates the geometric signal is GCPO, arXiv 2605.21801; how is not public, and
both forms here are our reconstruction. Signal u and RD lie in [0, 1], shape (B,); so does the result.

========== =========== ==================================================================================
name       formula     reading
========== =========== ==================================================================================
none       u           the signal alone, as SEED-GRPO has it
residual   u (1 - RD)  disagreement in geometry that the rewards do not account for: noise
product    u RD        disagreement that the rewards weigh: tracks the variance of the update
========== =========== ==================================================================================
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Calibration = Callable[[Float[Tensor, " B"], Float[Tensor, " B"]], Float[Tensor, " B"]]


def none(u: Float[Tensor, " B"], rd: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The signal as it is."""
    del rd
    return u


def residual(u: Float[Tensor, " B"], rd: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Disagreement that the rewards do not account for."""
    return u * (1 - rd)


def product(u: Float[Tensor, " B"], rd: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Disagreement weighed by that of the rewards."""
    return u * rd


CALIBRATIONS: dict[str, Calibration] = {"none": none, "residual": residual, "product": product}
