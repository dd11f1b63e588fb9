r"""Rewards for answers that are right or wrong: 1 or 0.

    exact            the answer as text, but for case, spaces, thousands commas and a full stop
    numeric[:TOL]    the last number, within the relative tolerance (1e-6)
    math             as text or as mathematics by math-verify, which gets a second a pair
    choice           the letter of the right option, or its text

The answer of a response is what it marks (``\boxed{}``, ``####``, ``<answer>``, ``#`` on the last line). Without a
mark ``exact`` takes the whole response, ``numeric`` and ``math`` the last number, ``choice`` the last letter that is
said to be the answer or stands alone. Any of several right answers counts.
"""

import re
import string
from fractions import Fraction

from gcpo.semantics.answers import extract_answer, fold, marked_answer
from gcpo.semantics.equivalence import equal_math
from gcpo.tasks.base import Example
from gcpo.tasks.rewards.base import Reward, no_argument, stated

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?:/\d+)?")
_LONGEST = 1000  # digits; Python refuses to read 4300, which a policy that repeats itself may write
# A capital that is no word: "I'd say" and "I think" begin with one, and so does "A good question".
_LETTER = r"([A-Z])\b(?!['\u2019])"
_CHOICES = (
    re.compile(rf"\banswer\b(?:\s+is)?[\s:*_(\[]*{_LETTER}", re.IGNORECASE),
    re.compile(rf"^[ \t*_(\[]*{_LETTER}(?:[)\]*_.:]+(?:\s.*)?|\s*)$", re.MULTILINE),
    re.compile(rf"\b(?:option|choice)\b[\s:*_(\[]*{_LETTER}", re.IGNORECASE),
)
"""Where a letter is chosen: said to be the answer, alone on its line or before an option, named as an option."""


def exact(argument: str | None) -> Reward:
    """1 for the same text."""
    no_argument("exact", argument)

    def judge(response: str, example: Example) -> float:
        return float(fold(stated(response)) in map(fold, example.answers))

    return Reward("exact", judge, summary="1 for the same answer but for case, spaces and commas")


def numeric(argument: str | None) -> Reward:
    """1 for the same number."""
    try:
        tolerance = 1e-6 if argument is None else float(argument)
    except ValueError:
        tolerance = -1.0
    if not 0 <= tolerance < 1:
        raise ValueError(
            f"the tolerance of reward 'numeric' must be in [0, 1), found {argument!r}: write numeric:0.01."
        )

    def judge(response: str, example: Example) -> float:
        said = _number(extract_answer(response))
        golds = [gold for answer in example.answers if (gold := _number(answer)) is not None]
        return float(said is not None and any(abs(said - gold) <= Fraction(tolerance) * abs(gold) for gold in golds))

    return Reward("numeric", judge, summary="1 for the same number, within a relative tolerance (numeric:0.01)")


def _number(text: str | None) -> Fraction | None:
    """The number that a text is, but for a currency, a percent sign and commas; None for anything else."""
    plain = re.sub(r"[,$€£%\s]", "", (text or "").replace("\u2212", "-"))
    if len(plain) > _LONGEST or not _NUMBER.fullmatch(plain):
        return None
    top, _, bottom = plain.partition("/")
    return None if bottom and not int(bottom) else Fraction(top) / int(bottom or 1)


def math(argument: str | None) -> Reward:
    """1 for an equal answer, as text or as mathematics."""
    no_argument("math", argument)

    def judge(response: str, example: Example) -> float:
        whole = fold(response) in map(fold, example.answers)
        answer = extract_answer(response)
        return float(whole or (answer is not None and any(equal_math(answer, gold) for gold in example.answers)))

    return Reward("math", judge, summary="1 for an equal answer, as text or as mathematics by math-verify")


def choice(argument: str | None) -> Reward:
    """1 for the letter of the right option, or its text."""
    no_argument("choice", argument)

    def judge(response: str, example: Example) -> float:
        options = [fold(option) for option in example.row.get("options", ())]
        said = _chosen(response, string.ascii_uppercase[: len(options) or 26])
        if said is None or not said.isupper() or len(said) != 1:
            place = options.index(fold(said)) if said is not None and options.count(fold(said)) == 1 else None
            said = None if place is None else string.ascii_uppercase[place]
        return float(said == example.answer)

    return Reward("choice", judge, summary="1 for the letter of the right option, or its text")


def _chosen(response: str, letters: str) -> str | None:
    """The letter a response chooses, the last of its kind, or else what it marks or says as a whole."""
    marked = marked_answer(response)
    text = response.strip() if marked is None else marked
    for pattern in _CHOICES:
        chosen = [letter for letter in pattern.findall(text) if letter in letters]
        if chosen:
            return str(chosen[-1])
    return text or None
