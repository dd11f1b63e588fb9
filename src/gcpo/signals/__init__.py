"""Uncertainty signals: pure functions of batched tensors to one number a group, (B,). One file a signal.

``SIGNALS`` is the table of all of them, those of other packages too (entry-point group ``gcpo.signals``).
"""

from gcpo.signals.affinity import affinity
from gcpo.signals.barycentric_transport import barycentric_transport
from gcpo.signals.cosine_dispersion import cosine_dispersion
from gcpo.signals.degree_dispersion import degree_dispersion
from gcpo.signals.eccentricity import eccentricity
from gcpo.signals.effective_rank import effective_rank
from gcpo.signals.eigen_score import eigen_score
from gcpo.signals.kernel_language_entropy import kernel_language_entropy
from gcpo.signals.laplacian_eigenvalues import laplacian_eigenvalues
from gcpo.signals.lexical_dispersion import lexical_dispersion
from gcpo.signals.pass_rate_margin import pass_rate_margin
from gcpo.signals.predictive_entropy import normalized_predictive_entropy, predictive_entropy
from gcpo.signals.registry import SIGNALS, Signal, load_file, load_plugins, primary, signal
from gcpo.signals.reward_dispersion import reward_dispersion
from gcpo.signals.reward_quantile_dispersion import reward_quantile_dispersion
from gcpo.signals.reward_spread import reward_spread
from gcpo.signals.score_dispersion import score_dispersion, weighted_score_dispersion
from gcpo.signals.semantic_entropy import rao_semantic_entropy, semantic_entropy
from gcpo.signals.semantic_sets import semantic_sets
from gcpo.signals.von_neumann_entropy import von_neumann_entropy

__all__ = [
    "SIGNALS",
    "Signal",
    "affinity",
    "barycentric_transport",
    "cosine_dispersion",
    "degree_dispersion",
    "eccentricity",
    "effective_rank",
    "eigen_score",
    "kernel_language_entropy",
    "laplacian_eigenvalues",
    "lexical_dispersion",
    "load_file",
    "normalized_predictive_entropy",
    "pass_rate_margin",
    "predictive_entropy",
    "primary",
    "rao_semantic_entropy",
    "reward_dispersion",
    "reward_quantile_dispersion",
    "reward_spread",
    "score_dispersion",
    "semantic_entropy",
    "semantic_sets",
    "signal",
    "von_neumann_entropy",
    "weighted_score_dispersion",
]

load_plugins()  # last: they import from here
