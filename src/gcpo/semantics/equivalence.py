"""When two answers mean the same, and the meanings of a group that follow from it.

    exact    the same text
    folded   the same text but for case, spaces around signs, thousands commas and a full stop
    math     folded, or equal as mathematics by math-verify, in one direction or the other (it is not symmetric)
    cosine:T their responses' embeddings have a cosine of at least T: for answers in prose, and not for numbers

None of them compares an answer with more than the other answers of its group. math is not transitive, since
math-verify takes 12 % for 12 and for 0.12: the connected components are the meanings.
"""

import operator
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gcpo.semantics.answers import fold
from gcpo.semantics.clustering import connected_components

_EXPONENT = re.compile(r"^-?(?:\d+(?:\.\d+)?|\.\d+)[eE][-+]?\d{1,3}$")
# math-verify reads a word as the product of its letters: "no" would equal "on".
_PROSE = re.compile(r"(?!.*[\d\\]).*[^\W\d_]{2}", re.DOTALL)
_SECONDS = 1


def equal_math(a: str, b: str) -> bool:
    """Whether two answers are equal, folded or as mathematics; words without a digit or LaTeX are no mathematics.

    What takes longer than a second to parse or to compare is not equal.

    Raises:
        ImportError: math-verify is not installed.
        RuntimeError: Called outside the main thread.
    """
    return fold(a) == fold(b) or (not (_PROSE.match(a) or _PROSE.match(b)) and _verified(*sorted((a, b))))


def _folded(a: str, b: str) -> bool:
    return a == b or fold(a) == fold(b)


EQUIVALENCES: Mapping[str, Callable[[str, str], bool]] = {
    "exact": operator.eq,
    "folded": _folded,
    "math": equal_math,
}


def check_equivalence(name: str, setting: str = "equivalence") -> float | None:
    """The least cosine that an equivalence by embeddings asks for; None for one that compares answers.

    Args:
        name: Of the equivalence.
        setting: What the user set it by.

    Raises:
        ValueError: There is none of that name.
    """
    kind, colon, least = name.partition(":")
    if not colon and name in EQUIVALENCES:
        return None
    try:
        threshold = float(least) if kind == "cosine" else -1.0
    except ValueError:
        threshold = -1.0
    if not 0 < threshold <= 1:
        raise ValueError(
            f"{setting} must be one of {', '.join(EQUIVALENCES)} or cosine:T with T in (0, 1], found {name!r}."
        )
    return threshold


def answer_labels(answers: Sequence[str | None], group_size: int, equivalence: str = "folded") -> Int[Tensor, "B G"]:
    """Meanings for ``semantic_entropy``: equivalent answers share a label, a missing answer stands alone.

    Args:
        answers: B * G answers, groups contiguous.
        group_size: G.
        equivalence: Name in ``EQUIVALENCES``.

    Returns:
        (B, G) int64: the place in the batch of the group's first response with that meaning.

    Raises:
        ValueError: The number of answers is not a multiple of ``group_size``, or the equivalence is unknown.
    """
    labels = connected_components(equal_answers(answers, group_size, equivalence))
    return labels + torch.arange(0, len(answers), group_size).unsqueeze(-1)


def equal_answers(
    answers: Sequence[str | None], group_size: int, equivalence: str = "folded"
) -> Bool[Tensor, "B G G"]:
    """The relation that ``answer_labels`` takes the components of; arguments and errors as there."""
    if equivalence not in EQUIVALENCES:
        raise ValueError(f"equivalence must be one of {', '.join(EQUIVALENCES)}, found {equivalence!r}.")
    if len(answers) % group_size:
        raise ValueError(f"answers must come in groups of {group_size}, found {len(answers)}.")
    equal = EQUIVALENCES[equivalence]
    rows = [answers[start : start + group_size] for start in range(0, len(answers), group_size)]
    same = [[[a is not None and b is not None and equal(a, b) for b in row] for a in row] for row in rows]
    return torch.tensor(same, dtype=torch.bool).view(-1, group_size, group_size)


@lru_cache(maxsize=65_536)
def _verified(a: str, b: str) -> bool:
    _, verify = _math_verify()
    x, y = _parsed(a), _parsed(b)
    return any(verify(*pair, timeout_seconds=_SECONDS) for pair in ((x, y), (y, x)))


@lru_cache(maxsize=65_536)
def _parsed(answer: str) -> Any:
    parse, _ = _math_verify()
    return parse(f"${_EXPONENT.sub(_written_out, answer)}$", parsing_timeout=_SECONDS)


def _written_out(number: re.Match[str]) -> str:
    """A number without its exponent: math-verify reads the e of 1.5e6 as Euler's."""
    return format(Decimal(number[0]), "f")


def _math_verify() -> tuple[Callable[..., Any], Callable[..., bool]]:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ImportError(
            "the equivalence 'math' needs math-verify, which is not installed: "
            'install it with pip install "gcpo[train]".'
        ) from error
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        raise RuntimeError(
            f"the equivalence 'math' limits its time by signals, which only the main thread gets, found thread "
            f"{thread.name!r}: label answers in the main thread, or use 'folded'."
        )
    return parse, verify
