"""From a response to its steps.

A step is a line. A response of a single line has its sentences as steps: a sentence ends at a full stop, question or
exclamation mark (and what closes a quotation or bracket) before a space, unless the next word is in lower case, or the
full stop belongs to an abbreviation ("Dr."), an initial ("J.") or the number of an item ("1."). The stop inside 3.14
has no space behind it.
"""

import re

_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)\]*$]))\s+(?![a-z]{2})|(?<=[。！？])")
_NO_END = re.compile(r"^\d{1,2}\.$|(?:^|[\s(])(?:[A-Z]|(?i:e\.g|i\.e|cf|vs|approx|fig|eq|mr|mrs|ms|dr|prof|st|jr))\.$")

_LONGEST = 12  # more characters than any of these: only the end of a sentence is looked at


def split_steps(text: str, max_steps: int) -> list[str]:
    """The lines of a response that say anything, or the sentences of its only line.

    More than ``max_steps`` have neighbours merged, evenly along the response.
    """
    steps, joint = [line for line in text.splitlines() if line.strip()], "\n"
    if len(steps) == 1:
        steps, joint = _sentences(steps[0]), " "
    if len(steps) <= max_steps:
        return steps
    merged: list[list[str]] = [[] for _ in range(max_steps)]
    for i, step in enumerate(steps):
        merged[i * max_steps // len(steps)].append(step)
    return [joint.join(part) for part in merged]


def _sentences(line: str) -> list[str]:
    sentences: list[str] = []
    for piece in _END.split(line):
        if sentences and _NO_END.search(sentences[-1][-_LONGEST:]):
            sentences[-1] += f" {piece}"
        elif piece.strip():
            sentences.append(piece)
    return sentences
