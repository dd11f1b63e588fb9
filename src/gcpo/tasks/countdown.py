"""Reach a target from three given numbers, each used exactly once, by +, - and *.

    7 2 5=19?
    7*2=14
    14+5=19
    #7*2+5

The first line is the prompt. Many problems have several right answers, and any expression that works is one.
"""

import ast
import re
from itertools import permutations

from gcpo.tasks.base import Example, NumberedTask, final_answer

LARGEST = 9
"""The given numbers are 1 ... LARGEST."""
SIGNS = "+-*"
ORDERS = list(permutations(range(3)))
_CALCULATE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
_SYMBOLS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}


def evaluate(expression: str) -> tuple[int, list[int]] | None:
    """Value of an expression in whole numbers, + - * and brackets, and the numbers in it, left to right.

    None for everything else, as division, powers, signs in front of a number, and texts beyond 64 characters.

    >>> evaluate("(7-2)*5")
    (25, [7, 2, 5])
    """
    if not re.fullmatch(r"[0-9+\-*() ]{1,64}", expression):  # so short that no nesting exhausts the parser
        return None
    try:
        return _walk(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError:
        return None


def _walk(node: ast.expr) -> tuple[int, list[int]] | None:
    match node:
        case ast.Constant(value=int(value)):
            return value, [value]
        case ast.BinOp(left, operator, right) if type(operator) in _SYMBOLS:
            a, b = _walk(left), _walk(right)
            return a and b and (_CALCULATE[_SYMBOLS[type(operator)]](a[0], b[0]), a[1] + b[1])
        case _:
            return None


class Countdown(NumberedTask):
    """Three numbers of 1 ... 9 and a target of 1 ... 99; see the module for an example."""

    name = "countdown"
    summary = "Reach a target from three numbers, each used once, by +, - and *."
    max_new_tokens = 24
    size = LARGEST**3 * 3 * 3 * 2 * 6

    def problem(self, number: int) -> Example | None:
        """Problem ``number``: its digits in mixed base are a gold solution and the order of the given numbers."""
        digits = []
        for base in (LARGEST, LARGEST, LARGEST, 3, 3, 2, 6):
            number, digit = divmod(number, base)
            digits.append(digit)
        numbers = [1 + digit for digit in digits[:3]]
        solution = _solution(numbers, SIGNS[digits[3]], SIGNS[digits[4]], swap=digits[5] == 1)
        if solution is None:
            return None
        target, working, answer = solution
        given = " ".join(str(numbers[i]) for i in ORDERS[digits[6]])
        return Example(f"{given}={target}?\n", answer, f"{working}#{answer}")

    def key(self, prompt: str) -> str:
        """The target and the given numbers in order of size."""
        numbers, target = _parse(prompt)
        return f"{target} from {numbers}"

    def grade(self, response: str, example: Example) -> float:
        """1.0 if the final answer is an expression that has every given number once and the target as its value."""
        value, used = evaluate(final_answer(response) or "") or (None, [])
        numbers, target = _parse(example.prompt)
        return float(value == target and sorted(used) == numbers)

    def wrong_answers(self, example: Example) -> list[str]:
        """Expressions that miss the target, drop a number, use one twice, or reach it by what is not allowed."""
        numbers, target = _parse(example.prompt)
        answer = example.answer
        missed = [f"{answer}+1", f"{answer}+{numbers[0]}", f"{answer}+{numbers[0]}-{numbers[0]}", str(target)]
        barred = [f"{answer}/1", f"{answer}**1", f"+{answer}", f"({answer}", f"{answer})", f"{answer}.0"]
        return [*missed, *barred, f"{answer}={target}", f"{answer} 1", f"{answer};0", "1,2,3", "()", "a*b+c", "7(2)"]


def _solution(numbers: list[int], inner: str, outer: str, swap: bool) -> tuple[int, str, str] | None:
    """Target, working and expression of (a inner b) outer c, or of c outer (a inner b) if ``swap``.

    None where a value on the way is not positive or the target exceeds 99.
    """
    a, b, c = numbers
    partial = _CALCULATE[inner](a, b)
    left, right = (c, partial) if swap else (partial, c)
    target = _CALCULATE[outer](left, right)
    if partial < 1 or not 1 <= target <= 99:
        return None
    # Brackets only where they matter: around a sum that is a factor, or behind a minus.
    brackets = inner != "*" and (outer == "*" or (swap and outer == "-"))
    first = f"({a}{inner}{b})" if brackets else f"{a}{inner}{b}"
    answer = f"{c}{outer}{first}" if swap else f"{first}{outer}{c}"
    return target, f"{a}{inner}{b}={partial}\n{left}{outer}{right}={target}\n", answer


def _parse(prompt: str) -> tuple[list[int], int]:
    """Given numbers in order of size, and the target."""
    given, _, target = prompt.removesuffix("?\n").partition("=")
    return sorted(map(int, given.split())), int(target)
