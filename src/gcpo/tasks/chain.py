"""Two-digit sums and differences, left to right.

    37+25-18=?
    37+25=62
    62-18=44
    #44

The first line is the prompt. No value on the way is negative.
"""

from gcpo.tasks.base import Example, NumberedTask

SIGNS = "+-"


class Chain(NumberedTask):
    """Three two-digit terms; see the module for an example."""

    name = "chain"
    summary = "Add and subtract three two-digit numbers."
    max_new_tokens = 26
    size = 90**3 * 4

    def problem(self, number: int) -> Example | None:
        """Problem ``number``: its digits in base 90 are the terms, two bits on top are the signs."""
        signs, number = divmod(number, 90**3)
        a, b, c = 10 + number // 90**2, 10 + number // 90 % 90, 10 + number % 90
        first, second = SIGNS[signs // 2], SIGNS[signs % 2]
        partial = a + b if first == "+" else a - b
        total = partial + c if second == "+" else partial - c
        if partial < 0 or total < 0:
            return None
        working = f"{a}{first}{b}={partial}\n{partial}{second}{c}={total}\n"
        return Example(f"{a}{first}{b}{second}{c}=?\n", str(total), f"{working}#{total}")

    def key(self, prompt: str) -> str:
        """The signed terms in order of size: 37+25-18 and 25-18+37 are one problem."""
        terms = prompt.removesuffix("=?\n").replace("-", "+-").split("+")
        return " ".join(sorted(terms))
