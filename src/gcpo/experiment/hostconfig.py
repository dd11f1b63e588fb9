"""A host's configuration from our defaults and the user's ``key=value`` words, checked by its own parser."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import HfArgumentParser

from gcpo.experiment.resolve import suggest
from gcpo.experiment.settings import UsageError


def host_config(kind: Any, values: Mapping[str, Any], chosen: Iterable[str], own: Iterable[str], command: str) -> Any:
    """An instance of the host's configuration.

    Args:
        kind: Its class.
        values: Fields.
        chosen: Those that the user gave.
        own: Settings of the command, to suggest one of them for a misspelt word.
        command: Its name.

    Raises:
        UsageError: The user gave a field that does not exist, is not theirs to set, or has a wrong value; or this is
            one of several processes, which would write into one run directory.
    """
    if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UsageError(
            f"gcpo {command} is one process, found WORLD_SIZE={processes}: launch a script with the trainer instead "
            "(docs/distributed.md)."
        )
    known = kind.__dataclass_fields__
    for key in chosen:
        if key == "output_dir":
            raise UsageError("output_dir is set by the run directory: choose that with --output.")
        if key not in known:
            hint = suggest(key, [*known, *own]) or f": see gcpo {command} --help."
            raise UsageError(f"there is no setting {key!r}{hint}")
    empty = [key for key, value in values.items() if value == []]
    try:
        words = [word for key, value in values.items() for word in _words(key, value, known[key].type)]
        (config,) = _Parser(kind).parse_args_into_dataclasses(words)
    except UsageError:
        raise
    except Exception as error:  # hosts check their fields each in its own way, or not and trip over them
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"the trainer refuses these settings: {what}") from error
    for key in empty:  # which no command line can say
        setattr(config, key, [])
    return config


class _Parser(HfArgumentParser):
    def error(self, message: str) -> Any:
        field, _, fault = message.removeprefix("argument --").partition("/")
        raise UsageError(f"{field}: {fault.partition(': ')[2]}" if fault else message)


def _words(key: str, value: Any, kind: Any) -> list[str]:
    """A field as command-line words; a text with commas is a list where the field takes one."""
    if isinstance(value, str) and "," in value and "list" in str(kind):
        value = [item.strip() for item in value.split(",")]
    if value == []:
        return []
    if value is False and "bool" not in str(kind):  # as YAML reads save_strategy=no
        value = "no"
    if isinstance(value, list | tuple):
        return [f"--{key}", *map(str, value)]
    return [f"--{key}={json.dumps(value) if isinstance(value, dict) else value}"]
