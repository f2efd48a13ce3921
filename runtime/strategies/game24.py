"""The Game of 24: four numbers, each used once, are to make 24. Exact, with fractions; nothing is searched here."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from runtime.base.errors import UsageError

_NUMBER = r"(-?\d{1,9}(?:/\d{1,9}|\.\d{1,9})?)"
_STEP = re.compile(
    rf"(?<![\d.]){_NUMBER}\s*([-+*/×÷−])\s*{_NUMBER}\s*=\s*{_NUMBER}(?![\d.]*\d)\s*(?:\(\s*left\s*:?\s*([^()]*)\))?",
    re.IGNORECASE,
)
_PLAIN = str.maketrans("×÷−", "*/-")
_LONGEST = 200  # characters of an expression that is worth reading


@dataclass(frozen=True, slots=True)
class Term:
    """A number that is left, and how it was made: 6 from '(10 - 4)'."""

    value: Fraction
    made: str


def start(question: str) -> tuple[Term, ...]:
    """The four numbers in a question; a 24 beside them is the goal. Raises UsageError."""
    numbers = [int(found) for found in re.findall(r"\d{1,9}", question)]
    if len(numbers) == 5 and 24 in numbers:
        # The goal is told first or last: "make 24 from 1 2 3 4", "use 1 2 3 4 to make 24".
        numbers = numbers[:4] if numbers[4] == 24 else numbers[1:] if numbers[0] == 24 else numbers
    if len(numbers) != 4:
        raise UsageError(
            f"the Game of 24 is played with four numbers, the question has {len(numbers)}", hint='as in "4 9 10 13"'
        )
    return tuple(Term(Fraction(number), str(number)) for number in numbers)


def after(line: str, terms: Sequence[Term]) -> tuple[Term, ...] | None:
    """What is left after a step `a op b = c (left: ...)`; None when it is no step, or wrong in any part."""
    found = _STEP.search(line)
    if found is None:
        return None
    try:
        first, second, result = (Fraction(found[group]) for group in (1, 3, 4))
        left = list(terms)
        one = _take(left, first)
        other = _take(left, second)
        sign = found[2].translate(_PLAIN)
        made = {"+": first + second, "-": first - second, "*": first * second}.get(sign)
        if made is None:
            made = first / second
        stated = (
            None if found[5] is None else [Fraction(each) for each in re.split(r"[\s,]+", found[5].strip()) if each]
        )
    except (ValueError, ZeroDivisionError):
        return None
    if made != result:
        return None
    left.append(Term(made, f"({one.made} {sign} {other.made})"))
    if stated is not None and Counter(stated) != Counter(term.value for term in left):
        return None
    return tuple(left)


def _take(terms: list[Term], value: Fraction) -> Term:
    """Raises ValueError when there is no such number."""
    return terms.pop([term.value for term in terms].index(value))


def solution(terms: Sequence[Term]) -> str | None:
    """The expression, once a single 24 is left."""
    if len(terms) != 1 or terms[0].value != 24:
        return None
    made = terms[0].made
    return made[1:-1] if made.startswith("(") else made


def solves(expression: str, numbers: Sequence[int]) -> bool:
    """Whether an expression uses exactly these numbers, each once, and makes 24."""
    text = expression.translate(_PLAIN).partition("=")[0].strip()
    if len(text) > _LONGEST:
        return False
    used: list[int] = []
    try:
        value = _value(ast.parse(text, mode="eval").body, used)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return value == 24 and Counter(used) == Counter(numbers)


def _value(node: ast.expr, used: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp):
        first, second = _value(node.left, used), _value(node.right, used)
        match node.op:
            case ast.Add():
                return first + second
            case ast.Sub():
                return first - second
            case ast.Mult():
                return first * second
            case ast.Div():
                return first / second
    raise ValueError("not an expression of the game")


def shown(terms: Sequence[Term]) -> str:
    """The numbers that are left, ascending, so that equal states read alike: '1/2 3 8'."""
    return " ".join(str(value) for value in sorted(term.value for term in terms))
