r"""From the text of a response to its final answer.

Where an answer stands, first match wins; of several of one kind the last counts:

1. ``\boxed{...}``          competition mathematics (MATH, AIME)
2. ``#### 72``              GSM8K: what follows the mark on its line
3. ``<answer>...</answer>``  R1-style templates
4. ``#72`` as the last line  the built-in tasks
5. ``answer is $x$``        a formula, also in ``\(x\)``: few-shot prompts for MATH (Minerva)
6. ``answer: yes``          at the very end and without a digit: questions whose answers are words
7. the last number          free text: sign, decimals, exponent and fraction belong to it
"""

import re
from functools import lru_cache

# What a policy may write knows no bounds, so each of these takes time linear in its length.
_MARKED = re.compile(r"^[ \t]*####[ \t]*([^#\s].*)", re.MULTILINE)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
# The # must touch its answer: "# Title" is a heading.
_LAST_LINE = re.compile(r"[ \t]*#([^#\s].*)")
_SAID = r"\banswer(?:\s+is\b|\s*:)[\s:*_]*"
_SAID_LAST = re.compile(rf".*{_SAID}", re.DOTALL | re.IGNORECASE)
# A formula touches its dollar signs, a price does not: "$5 and not $4".
_FORMULA = re.compile(_SAID + r"(?:\$(?=\S)([^$\n]*[^$\s])\$(?!\d)|\\\(([^\n]{1,200}?)\\\))", re.IGNORECASE)
_UNSIGNED = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
# A minus after a word, a number or a bracket is a dash or a difference ("2-3"), not a sign.
_NUMBER = re.compile(rf"(?:(?<![\w.)\]])-\$?)?(?<![\w.]){_UNSIGNED}(?:/\d+)?")
_EMPHASIS = "*_`$ \t"


def marked_answer(response: str) -> str | None:
    """The final answer of a response that marks it, by 1 to 4 of the module's list; else None."""
    boxed = _last_boxed(response)
    if boxed is not None:
        return boxed.strip()
    last_line = response.rstrip().rpartition("\n")[2]
    last = _LAST_LINE.match(last_line)
    for found in (_MARKED.findall(response), _tagged(response), last.groups() if last else ()):
        if found:
            return str(found[-1]).strip().strip(_EMPHASIS)
    return None


def extract_answer(response: str) -> str | None:
    """The final answer of a response, or None if it has none."""
    marked = marked_answer(response)
    if marked is not None:
        return marked
    if formulas := _FORMULA.findall(response):
        return "".join(formulas[-1]).strip()
    if words := _last_words(response):
        return words
    numbers = _NUMBER.findall(response.replace("\u2212", "-"))
    return str(numbers[-1]).rstrip(",").replace("$", "") if numbers else None


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


def _tagged(response: str) -> list[str]:
    """What stands between ``<answer>`` and the next ``</answer>``, each time."""
    found, start = [], None
    for tag in _TAG.finditer(response):
        if not tag[1]:
            start = tag.end() if start is None else start
        elif start is not None:
            found.append(response[start : tag.start()])
            start = None
    return found


def _last_words(response: str) -> str | None:
    """What follows the last "the answer is", if it ends the response, on one line without a digit; else None."""
    said = _SAID_LAST.match(response)
    words = response[said.end() :].strip().strip(_EMPHASIS + ".") if said else ""
    return None if "\n" in words or re.search(r"\d", words) or not re.search(r"\w", words) else words


@lru_cache(maxsize=65_536)
def fold(answer: str) -> str:
    """An answer without what does not change its meaning: case, spaces around signs, thousands commas, a full stop."""
    text = re.sub(r"\s+", " ", answer).strip().casefold().rstrip(".").replace("\u2212", "-")
    text = re.sub(r"(?<!\w) | (?!\w)", "", text)
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) else text
