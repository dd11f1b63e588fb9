"""The product of two two-digit numbers, by the tens and ones of the second.

    47*36=?
    47*30=1410
    47*6=282
    1410+282=1692
    #1692

The first line is the prompt.
"""

from gcpo.tasks.base import Example, NumberedTask


class Product(NumberedTask):
    """Two two-digit factors; see the module for an example."""

    name = "product"
    summary = "Multiply two two-digit numbers."
    max_new_tokens = 40
    size = 90**2

    def problem(self, number: int) -> Example:
        """Problem ``number``: its digits in base 90 are the factors."""
        a, b = 10 + number // 90, 10 + number % 90
        tens, ones = b // 10 * 10, b % 10
        working = f"{a}*{tens}={a * tens}\n{a}*{ones}={a * ones}\n{a * tens}+{a * ones}={a * b}\n"
        return Example(f"{a}*{b}=?\n", str(a * b), f"{working}#{a * b}")

    def key(self, prompt: str) -> str:
        """The factors in order of size: 47*36 and 36*47 are one problem."""
        return " ".join(sorted(prompt.removesuffix("=?\n").split("*")))
