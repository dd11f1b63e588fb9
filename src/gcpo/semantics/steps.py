"""From a response to its steps.

    auto         a step is a line; a response of a single line has its sentences as steps
    lines        a step is a line
    sentences    a step is a sentence; a line always ends one

A sentence ends at a full stop, question or exclamation mark (and what closes a quotation or bracket) before a space,
unless the next word is in lower case, or the full stop belongs to an abbreviation ("Dr."), an initial ("J.") or the
number of an item ("1."). The stop inside 3.14 has no space behind it.
"""

import re
from itertools import pairwise

STEPS = ("auto", "lines", "sentences")
"""What a response can be split by."""

_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)\]*$]))\s+(?![a-z]{2})|(?<=[。！？])")
_NO_END = re.compile(
    r"^\s*\d{1,2}\.$|(?:^|[\s(])(?:[A-Z]|(?i:e\.g|i\.e|cf|vs|approx|fig|eq|mr|mrs|ms|dr|prof|st|jr))\.$"
)

_LONGEST = 12  # more characters than any of these: only the end of a sentence is looked at


def split_steps(text: str, max_steps: int, by: str = "auto") -> list[str]:
    """The steps of a response that say anything.

    More than ``max_steps`` have neighbours merged, evenly along the response.

    Raises:
        ValueError: ``by`` is none of ``STEPS``.
    """
    check_steps(by)
    steps = [line for line in text.splitlines() if line.strip()]
    by_sentences = splits_sentences(by, len(steps))
    if by_sentences:
        steps = [sentence for line in steps for sentence in _sentences(line)]
    if len(steps) <= max_steps:
        return steps
    merged: list[list[str]] = [[] for _ in range(max_steps)]
    for i, step in enumerate(steps):
        merged[i * max_steps // len(steps)].append(step)
    return [(" " if by_sentences else "\n").join(part) for part in merged]


def check_steps(by: str, setting: str = "steps") -> None:
    """Make sure that responses can be split so.

    Args:
        by: What a step is.
        setting: What the user set it by.

    Raises:
        ValueError: It is none of ``STEPS``.
    """
    if by not in STEPS:
        raise ValueError(f"{setting} must be {', '.join(STEPS[:-1])} or {STEPS[-1]}, found {by!r}.")


def splits_sentences(by: str, lines: int) -> bool:
    """Whether a response of so many lines that say anything is split into sentences."""
    return by == "sentences" or (by == "auto" and lines == 1)


def sentence_starts(line: str) -> list[int]:
    """Where in a line a sentence begins, but for the first."""
    starts, begun = [], 0
    for gap in _END.finditer(line):
        said = line[begun : gap.start()]
        if said.strip() and gap.end() < len(line) and not _NO_END.search(said[-_LONGEST:]):
            begun = gap.end()
            starts.append(begun)
    return starts


def _sentences(line: str) -> list[str]:
    cuts = [0, *sentence_starts(line), len(line)]
    *before, last = (line[a:b] for a, b in pairwise(cuts))
    return [*(sentence.rstrip() for sentence in before), last]
