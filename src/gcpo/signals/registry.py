"""What the rest of the product knows of a signal: its name, the inputs it takes and its largest value.

A signal is a plain function of batched tensors to (B,). Its parameters are its declaration: those without a default
are what it needs, the others it uses when they are there. ``@signal`` only puts it in the table.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

INPUTS = ("rewards", "embeddings", "points", "point_mask", "labels", "log_probs", "mask")
"""Everything a signal may take, by the name of its parameter."""


@dataclass(frozen=True)
class Signal:
    """A row of the table of signals.

    Attributes:
        name: The function's name.
        function: The signal itself.
        upper: Largest value the signal takes on n responses; recipes divide by it.
        source: Paper (arXiv id) or statement of where it comes from.
    """

    name: str
    function: Callable[..., Tensor]
    upper: Callable[[Tensor], Tensor]
    source: str

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        return {k: p for k, p in inspect.signature(self.function).parameters.items() if k in INPUTS}

    @property
    def needs(self) -> tuple[str, ...]:
        """Inputs it cannot do without."""
        return tuple(name for name, p in self._parameters.items() if p.default is inspect.Parameter.empty)

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def __call__(self, inputs: Mapping[str, Any], **settings: Any) -> Tensor:
        """The signal on whatever it takes of ``inputs``, (B,)."""
        return self.function(**{k: inputs[k] for k in self._parameters if inputs.get(k) is not None}, **settings)


SIGNALS: dict[str, Signal] = {}


def signal(upper: Callable[[Tensor], Tensor], source: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Enter the decorated function into ``SIGNALS`` under its own name; the function stays as it is."""

    def enter(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        SIGNALS[function.__name__] = Signal(function.__name__, function, upper, source)
        return function

    return enter
