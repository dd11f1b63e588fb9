"""What the rest of the product knows of a signal: its name, the inputs it takes and its least and largest value.

A signal is a plain function of batched inputs to (B,). Its parameters are its declaration: those without a default
are what it needs, and hosts give it these, the masks and the range of rewards. Other parameters are settings, which
only a direct caller changes: what a signal computes never hangs on what else a host happens to have. ``@signal`` only
puts it in the table.
"""

import inspect
import runpy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gcpo.signals.affinity import affinity

INPUTS = (
    "rewards",  # (B, G)
    "advantages",  # (B, G), of the recipe's base
    "embeddings",  # (B, G, D)
    "points",  # (B, G, S, D)
    "similarity",  # (B, G, G)
    "labels",  # (B, G), meanings
    "texts",  # B lists of G strings
    "log_probs",  # (B, G)
    "lengths",  # (B, G), tokens
    "scores",  # (B, G, F), features of the log-probability's gradient
)
"""Everything a signal may need, by the name of its parameter."""

_WHERE_TAKEN = (
    "mask",  # (B, G)
    "reward_range",  # a number, largest minus smallest reward
    "point_mask",  # (B, G, S)
)

DERIVED: Mapping[str, tuple[str, Callable[[Any], Tensor]]] = {"similarity": ("embeddings", affinity)}
"""Inputs that are made of another one where they are not given."""

Bound = Callable[[Tensor], Tensor]
Function = TypeVar("Function", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Signal:
    """A row of the table of signals.

    Attributes:
        name: The function's name.
        function: The signal itself.
        upper: Largest value the signal takes on n responses, by n; None if there is none.
        lower: Its value on n identical responses, by n.
        source: Paper (arXiv id) or statement of where it comes from.
    """

    name: str
    function: Callable[..., Tensor]
    upper: Bound | None
    lower: Bound
    source: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Inputs it cannot do without."""
        return tuple(name for name, p in self._parameters.items() if p.default is inspect.Parameter.empty)

    @property
    def takes(self) -> tuple[str, ...]:
        """What hosts give it: what it needs, and masks and the range of rewards where it takes them."""
        return (*self.needs, *(name for name in _WHERE_TAKEN if name in self._parameters))

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def __call__(self, inputs: Mapping[str, Any], **settings: Any) -> Tensor:
        """The signal on whatever it takes of ``inputs``, (B,)."""
        found = {name: inputs.get(name) for name in self.takes}
        for name in found:
            if found[name] is None and name in DERIVED:
                source, derive = DERIVED[name]
                found[name] = derive(inputs[source])
        return self.function(**{k: v for k, v in found.items() if v is not None}, **settings)


def primary(names: Iterable[str]) -> set[str]:
    """What a host must bring so that all of ``names`` can be had: derived inputs replaced by their source."""
    return {DERIVED[name][0] if name in DERIVED else name for name in names}


SIGNALS: dict[str, Signal] = {}


def signal(upper: Bound | None, source: str, lower: Bound = torch.zeros_like) -> Callable[[Function], Function]:
    """Enter the decorated function into ``SIGNALS`` under its own name; the function stays as it is.

    Args:
        upper: Largest value on n responses, a function of n (a float tensor); None if there is none.
        source: Where the signal comes from.
        lower: Value on n identical responses, a function of n.

    Raises:
        ValueError: A signal of that name comes from another module, or the function takes an input nobody knows.
    """

    def enter(function: Function) -> Function:
        name = function.__name__
        if name in SIGNALS and SIGNALS[name].function.__module__ != function.__module__:
            raise ValueError(
                f"signal {name!r} of {function.__module__} has the name of the one in "
                f"{SIGNALS[name].function.__module__}: rename it."
            )
        parameters = inspect.signature(function).parameters.values()
        unknown = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.name not in INPUTS]
        if unknown:
            raise ValueError(
                f"signal {name!r} needs {unknown[0]!r}, which no host can give it: inputs are {', '.join(INPUTS)}; "
                "give settings a default."
            )
        SIGNALS[name] = Signal(name, function, upper, lower, source)
        return function

    return enter


def load_plugins() -> None:
    """Import what other packages declare in the entry-point group ``gcpo.signals``; importing enters their signals.

    Raises:
        ImportError: One of them cannot be imported.
    """
    for plugin in entry_points(group="gcpo.signals"):
        try:
            plugin.load()
        except Exception as error:
            package = plugin.dist.name if plugin.dist else "?"
            raise ImportError(
                f"the signals of package {package!r} ({plugin.value}) cannot be loaded: {error}; "
                "mend or uninstall the package."
            ) from error


def load_file(path: str | Path) -> None:
    """Run a Python file, which enters its signals.

    Raises:
        ValueError: There is no such file, it fails, or it enters no signal.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"signals must be a Python file, found nothing at {path}: check the path.")
    before = dict(SIGNALS)
    try:
        runpy.run_path(str(path), run_name=f"gcpo_signals.{path.stem}")
    except Exception as error:
        raise ValueError(f"the signals in {path} cannot be loaded: {type(error).__name__}: {error}.") from error
    if before == SIGNALS:
        raise ValueError(f"{path} enters no signal: decorate one with @signal of gcpo.signals.")
