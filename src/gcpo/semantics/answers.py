r"""From the text of a response to its final answer, and from answers to meanings.

Where an answer stands, first match wins; of several of one kind the last counts:

1. ``\boxed{...}``          competition mathematics (MATH, AIME)
2. ``#### 72`` or ``#72``    GSM8K and the built-in tasks: what follows the mark on its line
3. ``<answer>...</answer>``  R1-style templates
4. the last number           free text
"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

# A single # must touch its answer: "# Title" is a heading.
_MARKED = re.compile(r"^[ \t]*(?:####[ \t]*|#)([^#\s].*?)[ \t]*$", re.MULTILINE)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def extract_answer(response: str) -> str | None:
    """The final answer of a response, or None if it has none."""
    boxed = _last_boxed(response)
    if boxed is not None:
        return boxed.strip()
    for pattern in (_MARKED, _TAGGED):
        if found := pattern.findall(response):
            return str(found[-1]).strip()
    numbers = _NUMBER.findall(response)
    return numbers[-1].rstrip(",") if numbers else None


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
    """An answer without what does not change its meaning: case, spaces, a thousands comma, a closing full stop."""
    text = "".join(answer.split()).casefold().rstrip(".")
    return re.sub(r"(?<=\d),(?=\d{3})", "", text)


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
