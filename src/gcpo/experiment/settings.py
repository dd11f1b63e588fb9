"""What a training run is told: flags, a YAML file and ``key=value`` overrides, resolved into one record.

No heavy import here, so that a wrong word on the command line is answered at once.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml


class UsageError(ValueError):
    """The user asked for something that cannot be done; the message says what to change."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of ``gcpo train``.

    Attributes:
        recipe: Name of the recipe.
        task: Name of a built-in task; not used with ``data``.
        model: Packaged name, path or hub id of a causal language model.
        data: JSONL file of prompts and answers to train on in place of a task.
        prompt_field: Field of ``data`` that holds the prompt.
        answer_field: Field of ``data`` that holds the answer.
        signals: Python file of further signals, which is run.
        chat: Pose prompts as a user's turn of the model's chat template; None: for ``data``, if it has one.
        seed: Seed of prompts, sampling and data order.
        eval_seed: Seed of the held-out prompts and of sampling their responses; the same for all seeds of a study.
        eval_prompts: Held-out prompts to evaluate on, before and after.
        eval_samples: Responses sampled for each.
        trainer: Fields of ``GCPOConfig``.
    """

    recipe: str = "gcpo-bot"
    task: str = "countdown"
    model: str = "starter"
    data: str | None = None
    prompt_field: str = "prompt"
    answer_field: str = "answer"
    signals: str | None = None
    chat: bool | None = None
    seed: int = 0
    eval_seed: int = 0
    eval_prompts: int = 512
    eval_samples: int = 4
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("eval_prompts", "eval_samples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, found {getattr(self, name)}.")
        for name in ("data", "signals"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise UsageError(f"{name} must be a file, found nothing at {path}: check the path.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``config.yaml``."""
        return asdict(self)


OWN = tuple(f.name for f in fields(TrainSettings) if f.name != "trainer")
_WHOLE = tuple(f.name for f in fields(TrainSettings) if f.type in (int, "int"))
# Written into config.yaml for the reader; a run of that file finds them anew.
_NOTES = ("command", "output", "versions")


def resolve(flags: Mapping[str, Any], config: Path | None = None, overrides: Iterable[str] = ()) -> TrainSettings:
    """Settings from a YAML file, then flags, then ``key=value`` overrides; later ones win.

    Args:
        flags: Settings given as flags; None, here and in a file, for one that was not given.
        config: YAML file of settings, with ``GCPOConfig`` fields under ``trainer`` or beside them.
        overrides: ``key=value`` words, values as in YAML; a key that is no setting is a field of ``GCPOConfig``.

    Raises:
        UsageError: The file cannot be read, or a word is not ``key=value``.
    """
    merged: dict[str, Any] = {}
    for source in (_read(config) if config else {}, flags, dict(map(_split, overrides))):
        nested = source.get("trainer") or {}
        if not isinstance(nested, Mapping):
            raise UsageError(f"trainer must map fields of GCPOConfig to values, found {nested!r}.")
        level = {k: v for k, v in source.items() if k != "trainer" and k not in _NOTES}
        merged |= {k: v for k, v in (dict(nested) | level).items() if v is not None}
    own = {key: _typed(key, value) for key, value in merged.items() if key in OWN}
    return TrainSettings(**own, trainer={k: v for k, v in merged.items() if k not in OWN})


def suggest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` if a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _typed(key: str, value: Any) -> Any:
    """A setting in its type: whole numbers and yes-or-no as they are, anything else as text."""
    kind = "whole number" if key in _WHOLE else "true or false" if key == "chat" else "text"
    fits = {"whole number": type(value) is int, "true or false": isinstance(value, bool), "text": True}[kind]
    if not fits or isinstance(value, list | Mapping):
        raise UsageError(f"{key} must be {'' if kind != 'whole number' else 'a '}{kind}, found {value!r}.")
    return str(value) if kind == "text" else value


def _split(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"overrides are written key=value, found {word!r}; flags begin with --.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        return key, value


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"the configuration {path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"the configuration {path} must map settings to values, found {type(content).__name__}.")
    return content
