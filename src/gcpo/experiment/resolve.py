"""From flags, a YAML file and ``key=value`` overrides to one record of settings.

No heavy import here, so that a wrong word on the command line is answered at once.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from gcpo.experiment.settings import TaskSettings, UsageError

# Written into config.yaml for the reader; a run of that file finds them anew.
_NOTES = ("command", "output", "versions")


Settings = TypeVar("Settings", bound=TaskSettings)


def own(kind: type[TaskSettings]) -> tuple[str, ...]:
    """Names of a command's settings, without the host's."""
    return tuple(f.name for f in fields(kind) if f.name != "trainer")


def resolve(
    kind: type[Settings], flags: Mapping[str, Any], config: Path | None = None, overrides: Iterable[str] = ()
) -> Settings:
    """Settings from a YAML file, then flags, then ``key=value`` overrides; later ones win.

    Args:
        kind: Whose settings.
        flags: Settings given as flags; None, here and in a file, for one that was not given.
        config: YAML file of settings, with ``GCPOConfig`` fields under ``trainer`` or beside them.
        overrides: ``key=value`` words, values as in YAML; ``key=null`` takes back what was set before. A key that is
            no setting is a field of ``GCPOConfig``, for a command that trains.

    Raises:
        UsageError: The file cannot be read, or a word is not ``key=value`` or no setting.
    """
    merged: dict[str, Any] = {}
    given = dict(map(_split, overrides))
    for source in (_read(config) if config else {}, flags, given):
        nested = source.get("trainer") or {}
        if not isinstance(nested, Mapping):
            raise UsageError(f"trainer must map fields of GCPOConfig to values, found {nested!r}.")
        level = {k: v for k, v in source.items() if k != "trainer" and k not in _NOTES}
        merged |= {k: v for k, v in (dict(nested) | level).items() if v is not None}
    merged = {k: v for k, v in merged.items() if k not in given or given[k] is not None}
    unnamed = [key for key in merged if not isinstance(key, str)]
    if unnamed:
        raise UsageError(f"settings are named by words, found {unnamed[0]!r}: see --help.")
    kinds = get_type_hints(kind)
    known = {key: _typed(key, value, kinds[key]) for key, value in merged.items() if key in own(kind)}
    rest = {k: v for k, v in merged.items() if k not in known}
    if rest and "trainer" not in kinds:
        word = next(iter(rest))
        raise UsageError(f"there is no setting {word!r}{suggest(word, own(kind)) or ': see --help.'}")
    if rest:
        known["trainer"] = rest
    return kind(**known)


def suggest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` if a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# Text that YAML would read as something else: "You are: ..." is a mapping.
_PROSE = ("prompt_template", "system")

_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", lambda value: type(value) is int),
    int | None: ("a whole number", lambda value: type(value) is int),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    bool | None: ("true or false", lambda value: isinstance(value, bool)),
    float: ("a number", lambda value: type(value) in (int, float)),
    dict[str, Any]: ("a mapping", lambda value: isinstance(value, Mapping)),
    list[str]: ("a list of words", lambda value: all(isinstance(item, str) for item in value)),
    list[int]: ("a list of whole numbers", lambda value: all(type(item) is int for item in value)),
    list[float]: ("a list of numbers", lambda value: all(type(item) in (int, float) for item in value)),
}


def _typed(key: str, value: Any, kind: Any) -> Any:
    """A setting in its type: numbers, lists and yes-or-no as they are, anything else as text."""
    if kind in (list[str], list[int], list[float]):
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        value = [_value(i) if isinstance(i, str) and kind != list[str] else i for i in items]
    value = [_float(i) for i in value] if kind == list[float] else _float(value) if kind is float else value
    said, fits = _KINDS.get(kind, ("text", lambda value: not isinstance(value, list | Mapping)))
    if not fits(value):
        raise UsageError(f"{key} must be {said}, found {value!r}.")
    return value if kind in _KINDS else str(value)


def _float(value: Any) -> Any:
    """A number that YAML takes for a text, as 1e-4, which lacks its point; anything else as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _split(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"overrides are written key=value, found {word!r}; flags begin with --.")
    return key, value if key in _PROSE else _value(value)


# What YAML's reader raises of text that is no YAML, of dates and numbers that are none, and of too many brackets.
_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)


def _value(text: str) -> Any:
    """A text as YAML reads it, or as it stands."""
    try:
        return yaml.safe_load(text)
    except _UNREADABLE:
        return text


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, *_UNREADABLE) as error:
        raise UsageError(f"the configuration {path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"the configuration {path} must map settings to values, found {type(content).__name__}.")
    return content
