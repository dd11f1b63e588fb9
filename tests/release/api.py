"""The public contract as text: ``python -m tests.release.api`` prints it, and ``api.txt`` is what was promised.

A line a name, a field, a method or an option of the command line, with parameters, types and defaults.
"""

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

PUBLIC: dict[str, tuple[str, ...]] = {  # without names: those of the module's __all__
    "gcpo": (),
    "gcpo.signals": (),
    "gcpo.advantages": (),
    "gcpo.semantics": (),
    "gcpo.probe": (),
    "gcpo.policies": (),
    "gcpo.tasks": (),
    "gcpo.tasks.data": ("DataTask",),
    "gcpo.tasks.fields": ("Fields",),
    "gcpo.tasks.rewards": (),
    "gcpo.integrations.driver": ("Batch", "Driver", "Options", "Steered"),
    "gcpo.integrations.flat": ("FlatBatch",),
    "gcpo.integrations.resume": ("CheckpointError", "ExactResumeMixin", "last_checkpoint"),
    "gcpo.integrations.rewards": ("RewardError", "guarded"),
    "gcpo.integrations.vectors": ("pack", "with_vectors"),
    "gcpo.experiment.statistics": ("estimate", "majority", "paired", "pass_at_k"),
    "gcpo.report": (),
}


def lines() -> Iterator[str]:
    """The contract, sorted within each module."""
    for module, names in PUBLIC.items():
        home = importlib.import_module(module)
        for name in sorted(names or home.__all__):
            yield from described(f"{module}.{name}", getattr(home, name))
    yield from options()


def described(name: str, thing: Any) -> Iterator[str]:
    """A function with its parameters; a class with its own fields and methods; a table with its names."""
    if inspect.isclass(thing):
        own = vars(thing)
        made = (
            not is_dataclass(thing) and {"__init__", "__new__"} & own.keys() and not getattr(thing, "_is_protocol", 0)
        )
        yield f"{name}{_signature(thing)}" if made else name
        fields = {} if issubclass(thing, tuple) else own.get("__annotations__", {})
        yield from (f"{name}.{_field(thing, key, fields[key])}" for key in fields if not key.startswith("_"))
        methods = {key: value for key, value in own.items() if inspect.isfunction(value) and not key.startswith("_")}
        yield from (f"{name}.{key}{_signature(methods[key])}" for key in sorted(methods))
    elif inspect.isroutine(thing):
        yield f"{name}{_signature(thing)}"
    elif isinstance(thing, dict):
        yield from (f"{name}[{key!r}]" for key in sorted(thing))
    else:
        yield name


def options() -> Iterator[str]:
    """Every command with its options."""
    from gcpo.cli import _parser

    [commands] = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for name, parser in sorted(commands.choices.items()):
        words = (word for action in parser._actions for word in action.option_strings or [action.dest])
        yield f"gcpo {name} {' '.join(sorted(words))}"


def _signature(thing: Any) -> str:
    """Parameters, types and defaults, without what differs by version of Python or by run: modules and addresses."""
    return _bare(str(inspect.signature(inspect.unwrap(thing))))


def _field(owner: type, name: str, annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    default = f" = {vars(owner)[name]!r}" if name in vars(owner) else ""
    return f"{name}: {_bare(text + default)}"


def _bare(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", re.sub(r"\b(?:[A-Za-z_]\w*\.)+(\w)", r"\1", text))


if __name__ == "__main__":
    print("\n".join(lines()))
