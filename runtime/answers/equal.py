"""Whether two answers say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.answers import numbers, symbolic
from runtime.answers.extract import find_boxed
from runtime.answers.notation import bare, plain

_MAX_LENGTH = 2000  # characters; longer answers are compared word for word
_CHOICE = re.compile(r"\(?([A-Ja-j])(?:\)[.:]?|[.:]?$|[.:](?=\s))\s*(?:[\w$\\\"'-].*)?", re.DOTALL)


def equivalent(a: str, b: str) -> bool:
    """Whether two found answers say the same. Symmetric and reflexive; not transitive: 50% is 50, and it is 0.5.

    The first that applies decides: equal texts (without case, quotes, markup); two choices by their letters; two
    numbers by their exact values and measures; two formulas by math-verify, at a fixed limit of time.
    """
    if a == b:
        return True
    if max(len(a), len(b)) > _MAX_LENGTH:
        return a.casefold().split() == b.casefold().split()
    if plain(a) == plain(b):
        return True
    choices, values = (_choice(a), _choice(b)), (numbers.read(bare(a)), numbers.read(bare(b)))
    if all(choices):
        return choices[0] == choices[1]
    if values[0] and values[1]:
        return values[0].same(values[1])
    if any(choices) and any(values):
        return False
    return symbolic.are_formulas(a, b) and symbolic.equal(a, b)


def groups(answers: Sequence[str | None]) -> tuple[tuple[int, ...], ...]:
    """Indices of equal answers together, in order of first appearance; None (an abstention) is in no group.

    An answer joins the first group whose first member it equals.
    """
    found: list[tuple[str, list[int]]] = []
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        for first, indices in found:
            if equivalent(first, answer):
                indices.append(index)
                break
        else:
            found.append((answer, [index]))
    return tuple(tuple(indices) for _, indices in found)


def is_correct(found: str | None, wanted: str) -> bool:
    """Whether a found answer is the one of the key: an answer, or a worked solution (GSM8K, MATH) that ends in it."""
    return found is not None and equivalent(found, _key(wanted))


def _key(wanted: str) -> str:
    _, mark, final = wanted.rpartition("####")
    return final.strip() if mark else find_boxed(wanted) or wanted


def _choice(text: str) -> str | None:
    """The letter of "B", "(B)", "B." or "B) because", capital."""
    match = _CHOICE.fullmatch(bare(text))
    return match[1].upper() if match else None
