r"""From the text of a response to its final answer, and from answers to meanings.

Where an answer stands, first match wins; of several of one kind the last counts:

1. ``\boxed{...}``          competition mathematics (MATH, AIME)
2. ``#### 72``              GSM8K: what follows the mark on its line
3. ``<answer>...</answer>``  R1-style templates
4. ``#72`` as the last line  the built-in tasks
5. the last number          free text: sign, decimals, exponent and fraction belong to it
"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

_MARKED = re.compile(r"^[ \t]*####[ \t]*([^#\s].*?)[ \t]*$", re.MULTILINE)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
# The # must touch its answer: "# Title" is a heading.
_LAST_LINE = re.compile(r"(?:^|\n)[ \t]*#([^#\s][^\n]*?)\s*$")
_UNSIGNED = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
# A minus after a word, a number or a bracket is a dash or a difference ("2-3"), not a sign.
_NUMBER = re.compile(rf"(?:(?<![\w.)\]])-)?(?<![\w.]){_UNSIGNED}(?:/\d+)?")
_EMPHASIS = "*_`$ \t"


def extract_answer(response: str) -> str | None:
    """The final answer of a response, or None if it has none."""
    boxed = _last_boxed(response)
    if boxed is not None:
        return boxed.strip()
    for pattern in (_MARKED, _TAGGED, _LAST_LINE):
        if found := pattern.findall(response):
            return str(found[-1]).strip().strip(_EMPHASIS)
    numbers = _NUMBER.findall(response.replace("\u2212", "-"))
    return str(numbers[-1]).rstrip(",") if numbers else None


def _last_boxed(response: str) -> str | None:
    r"""Content of the last ``\boxed{...}``, whose braces may nest; None if there is none or it does not close."""
    start = response.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len("\\boxed"), len(response)):
        depth += (response[end] == "{") - (response[end] == "}")
        if depth == 0:
            return response[start + len("\\boxed{") : end]
    return None


def fold(answer: str) -> str:
    """An answer without what does not change its meaning: case, spaces around signs, thousands commas, a full stop."""
    text = re.sub(r"\s+", " ", answer).strip().casefold().rstrip(".").replace("\u2212", "-")
    text = re.sub(r"(?<!\w) | (?!\w)", "", text)
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) else text


def answer_labels(answers: Sequence[str | None], group_size: int) -> Int[Tensor, "B G"]:
    """Meanings for ``semantic_entropy``: equal folded answers share a label, a missing answer stands alone.

    Args:
        answers: B * G answers, groups contiguous.
        group_size: G.

    Returns:
        (B, G) int64; labels are unique over the batch.

    Raises:
        ValueError: The number of answers is not a multiple of ``group_size``.
    """
    if len(answers) % group_size:
        raise ValueError(f"answers must come in groups of {group_size}, found {len(answers)}.")
    ids: dict[tuple[int, str | int], int] = {}
    labels = []
    for i, answer in enumerate(answers):
        key = (i // group_size, i if answer is None else fold(answer))
        labels.append(ids.setdefault(key, len(ids)))
    return torch.tensor(labels).view(-1, group_size)
