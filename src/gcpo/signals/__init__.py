"""Uncertainty signals: pure functions of batched tensors to one number a group, (B,). One file a signal."""

from gcpo.signals.barycentric_transport import barycentric_transport
from gcpo.signals.cosine_dispersion import cosine_dispersion
from gcpo.signals.registry import SIGNALS, Signal, signal
from gcpo.signals.reward_dispersion import reward_dispersion
from gcpo.signals.semantic_entropy import semantic_entropy

__all__ = [
    "SIGNALS",
    "Signal",
    "barycentric_transport",
    "cosine_dispersion",
    "reward_dispersion",
    "semantic_entropy",
    "signal",
]
