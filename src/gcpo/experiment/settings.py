"""What a training run is told: flags, a YAML file and ``key=value`` overrides, resolved into one record.

No heavy import here, so that a wrong word on the command line is answered at once.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
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
        if self.data is not None and not Path(self.data).is_file():
            raise UsageError(f"data must be a file, found nothing at {self.data}: check the path.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``config.yaml``."""
        return asdict(self)


OWN = tuple(f.name for f in fields(TrainSettings) if f.name != "trainer")
# Written into config.yaml for the reader; a run of that file finds them anew.
_NOTES = ("command", "output", "versions")


def resolve(flags: Mapping[str, Any], config: Path | None = None, overrides: Iterable[str] = ()) -> TrainSettings:
    """Settings from a YAML file, then flags, then ``key=value`` overrides; later ones win.

    Args:
        flags: Settings given as flags; None for one that was not given.
        config: YAML file of settings, with ``GCPOConfig`` fields under ``trainer`` or beside them.
        overrides: ``key=value`` words; a key that is no setting is a field of ``GCPOConfig``.

    Raises:
        UsageError: The file cannot be read, or a word is not ``key=value``.
    """
    merged: dict[str, Any] = {}
    trainer: dict[str, Any] = {}
    given = {k: v for k, v in flags.items() if v is not None}
    for source in (_read(config) if config else {}, given, dict(map(_split, overrides))):
        trainer |= source.get("trainer", {})
        for key, value in source.items():
            if key in OWN:
                merged[key] = value
            elif key != "trainer" and key not in _NOTES:
                trainer[key] = value
    return replace(TrainSettings(), **_typed(merged), trainer=trainer)


def suggest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` if a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Words of the command line in the type of their setting."""
    defaults = asdict(TrainSettings())
    typed = dict(values)
    for key, value in values.items():
        if isinstance(defaults[key], int) and not isinstance(value, int):
            try:
                typed[key] = int(value)
            except ValueError:
                raise UsageError(f"{key} must be a whole number, found {value!r}.") from None
        if key == "chat" and isinstance(value, str):
            if value.lower() not in ("true", "false"):
                raise UsageError(f"chat must be true or false, found {value!r}.")
            typed[key] = value.lower() == "true"
    return typed


def _split(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"overrides are written key=value, found {word!r}; flags begin with --.")
    return key, value


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"the configuration {path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"the configuration {path} must map settings to values, found {type(content).__name__}.")
    return content
