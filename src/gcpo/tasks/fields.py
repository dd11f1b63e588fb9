r"""From a row to a problem: which field is what, how the prompt is worded, where the answer is marked.

An answer that marks its result (GSM8K's ``#### 72``, MATH's ``\boxed{72}``) is taken from there; any other is meant as
it stands. A list of answers has the first as the answer and the rest as references.
"""

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gcpo.semantics.answers import extract_answer
from gcpo.tasks.base import Example
from gcpo.tasks.sources import Row, RowError

_NAMED = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Fields:
    r"""Which field of a row is what.

    Attributes:
        prompt: Holds the prompt, a text.
        answer: Holds the answer: a text, a number, or a list of them that are all right; with ``choices``, the
            letter, the text or the place (from 0) of the right one.
        choices: Holds the options of a multiple-choice question: a list of texts, or
            ``{"text": [...], "label": [...]}``.
        solution: Holds a right response with working; None: the answer field.
        template: Wording of the prompt. ``{name}`` stands for that field of the row, ``{{`` and ``}}`` for braces;
            others, as in ``\boxed{}``, stay. None: the prompt field alone.

    Raises:
        ValueError: The template names the answer or the solution.
    """

    prompt: str = "prompt"
    answer: str = "answer"
    choices: str | None = None
    solution: str | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        told = {self.answer, self.solution} & set(_names(self.template or ""))
        if told:
            name = told.pop()
            raise ValueError(
                f"the prompt template must not tell the answer, found the field {{{name}}}: take it out, or write "
                f"{{{{{name}}}}} for the word in braces."
            )

    def example(self, row: Row) -> Example:
        """The problem of a row.

        Raises:
            RowError: A field is missing, empty or of the wrong type.
        """
        prompt = _text(row, self.prompt)
        answers = self._answers(row)
        options: list[str] = []
        if self.choices is not None:
            options, letter = _choose(row, self.choices, _value(row, self.answer), answers[0])
            answers = [letter]
            prompt += "\n" + "\n".join(map("{}. {}".format, string.ascii_uppercase, options))
        if self.template is not None:
            prompt = fill(self.template, {**row, self.prompt: prompt})
        solution = answers[0] if self.solution is None else _text(row, self.solution)
        marks = "####" in answers[0] or "\\boxed{" in answers[0]
        gold = [extract_answer(answers[0]) if marks else answers[0].strip(), *(a.strip() for a in answers[1:])]
        if not gold[0]:
            raise RowError(f"field {self.answer!r} marks an answer but none follows")
        known = {**row, "options": options} if options else row
        return Example(prompt, gold[0], solution, tuple(g for g in gold[1:] if g), row=known)

    def _answers(self, row: Row) -> list[str]:
        value = _value(row, self.answer)
        found = [_plain(self.answer, item) for item in (value if isinstance(value, list | tuple) else [value])]
        if not any(text.strip() for text in found):
            raise RowError(f"field {self.answer!r} is empty")
        return [text for text in found if text.strip()]


def fill(template: str, row: Row) -> str:
    """The template with fields in place of their names.

    Raises:
        RowError: It names a field the row does not have.
    """

    def put(found: re.Match[str]) -> str:
        return str(_value(row, found[1])) if found[1] else found[0][0]

    return _NAMED.sub(put, template)


def _names(template: str) -> list[str]:
    return [name for name in _NAMED.findall(template) if name]


def _choose(row: Row, name: str, given: Any, answer: str) -> tuple[list[str], str]:
    """The options, and the letter of the right one, which the row names by letter, label, text or place.

    A number beside options that are texts is a place (MMLU). Where it may as well be an option, nobody knows.
    """
    value = _value(row, name)
    labels: Sequence[Any] = ()
    if isinstance(value, dict) and {"text", "label"} <= value.keys():  # ARC
        value, labels = value["text"], value["label"]
    if not isinstance(value, list) or not 2 <= len(value) <= 26:
        raise RowError(f"field {name!r} must be a list of 2 to 26 options")
    options, answer = [str(option).strip() for option in value], answer.strip()
    named = [str(label) for label in labels] or list(string.ascii_uppercase[: len(options)])
    places = [str(place) for place in range(len(options))]
    is_place = isinstance(given, int) and not labels and all(isinstance(option, str) for option in value)
    readings = [places, options] if is_place else [named] if answer in named else [options, places]
    found = list(dict.fromkeys(known.index(answer) for known in readings if known.count(answer) == 1))
    if not found:
        raise RowError(f"the answer {answer!r} is none of the options in field {name!r}")
    if len(found) > 1 and not is_place:
        first, second = (string.ascii_uppercase[place] for place in found)
        raise RowError(f"the answer {answer!r} may be option {first} or the place of {second}: give the letter")
    return options, string.ascii_uppercase[found[0]]


def _value(row: Row, name: str) -> Any:
    if name not in row:
        raise RowError(f"no field {name!r}, found {', '.join(map(repr, row)) or 'none'}")
    return row[name]


def _text(row: Row, name: str) -> str:
    value = _value(row, name)
    if not isinstance(value, str):
        raise RowError(f"field {name!r} must be text, found {type(value).__name__}")
    if not value.strip():
        raise RowError(f"field {name!r} is empty")
    return _writable(name, value)


def _writable(name: str, text: str) -> str:
    """A text that can be written: half of an escaped emoji cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError(f"field {name!r} holds half of a character (a lone surrogate)") from None
    return text


def _plain(name: str, value: Any) -> str:
    """An answer as text, a number without exponent."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"field {name!r} must be text or a number, found {type(value).__name__}")
    if not isinstance(value, float):
        return _writable(name, str(value))
    if not math.isfinite(value):
        raise RowError(f"the answer must be a finite number, found {value}")
    return format(Decimal(repr(value)), "f")
