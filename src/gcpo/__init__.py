"""gcpo: geometry-aware, calibrated uncertainty for group-relative policy optimisation.

The public names are flat: ``from gcpo import signals, recipe, GCPOConfig, GCPOTrainer``. They load on first use, so
that importing gcpo costs nothing and never imports transformers or TRL.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcpo import signals
    from gcpo.integrations.trl import GCPOMixin, GCPOTrainer
    from gcpo.integrations.trl_config import GCPOConfig
    from gcpo.recipes import RECIPES, Outcome, Recipe, recipe

__version__ = "0.1.0"

_HOME = {
    "signals": "gcpo.signals",
    "recipe": "gcpo.recipes",
    "Recipe": "gcpo.recipes",
    "RECIPES": "gcpo.recipes",
    "Outcome": "gcpo.recipes",
    "GCPOConfig": "gcpo.integrations.trl_config",
    "GCPOMixin": "gcpo.integrations.trl",
    "GCPOTrainer": "gcpo.integrations.trl",
}

__all__ = [
    "RECIPES",
    "GCPOConfig",
    "GCPOMixin",
    "GCPOTrainer",
    "Outcome",
    "Recipe",
    "__version__",
    "recipe",
    "signals",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gcpo' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    return module if _HOME[name] == f"gcpo.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
