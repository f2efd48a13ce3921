"""Compares two answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from runtime.answers import numbers, symbolic
from runtime.answers.extract import extract_boxed
from runtime.answers.json_value import json_answer
from runtime.answers.notation import bare, plain

_MAX_LENGTH = 2000  # characters; longer answers are compared word for word
_CHOICE = re.compile(r"\(?([A-Ja-j])(?:\)[.:]?|[.:]?$|[.:](?=\s))\s*(?:[\w$\\\"'-].*)?", re.DOTALL)


def are_equal(a: str, b: str) -> bool:
    """Whether two extracted answers say the same. Symmetric and reflexive; not transitive: 50% is 50, and it is 0.5.

    The first rule that applies decides: two JSON objects or arrays by their values; equal texts (without case, quotes,
    markup); two choices by their letters; two numbers by their exact values and units; two formulas by math-verify,
    within a time limit.
    """
    return a == b or _compared(*sorted((a, b)))


# A vote groups the same answers after each sample. Two texts are compared once.
@lru_cache(maxsize=65_536)
def _compared(a: str, b: str) -> bool:
    values_in_json = json_answer(a), json_answer(b)
    if all(values_in_json):
        return values_in_json[0] == values_in_json[1]
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
    """The indices of equal answers, one group per answer, in order of first appearance; None is in no group.

    An answer joins the first group whose first member it equals.
    """
    found: list[tuple[str, list[int]]] = []
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        for first, indices in found:
            if are_equal(first, answer):
                indices.append(index)
                break
        else:
            found.append((answer, [index]))
    return tuple(tuple(indices) for _, indices in found)


def is_correct(found: str | None, wanted: str) -> bool:
    """Whether an extracted answer is the one of the key: an answer, or a worked solution (GSM8K, MATH) ending in it."""
    return found is not None and are_equal(found, _key(wanted))


def _key(wanted: str) -> str:
    _, mark, final = wanted.rpartition("####")
    return final.strip() if mark else extract_boxed(wanted) or wanted


def _choice(text: str) -> str | None:
    """The letter of "B", "(B)", "B." or "B) because", capital."""
    match = _CHOICE.fullmatch(bare(text))
    return match[1].upper() if match else None
