"""Compares two answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from runtime.answers import dates, numbers, symbolic
from runtime.answers.extract import extract_boxed
from runtime.answers.json_value import json_answer
from runtime.answers.notation import bare, plain

_MAX_LENGTH = 2000  # characters; longer answers are compared word for word
_CHOICE = re.compile(r"\(?([A-Ja-j])(?:\)[.:]?|[.:]?$|[.:](?=\s))\s*(?:[\w$\\\"'-].*)?", re.DOTALL)

_NAME = re.compile(r"([A-Za-z]|π|\\pi|pi)\s*(?:=|≈|\\approx)\s*")
_TWO_OR_DECIMAL = re.compile(r"-?\d+,(?:\d{1,2}|\d{4,})")


def are_equal(a: str, b: str) -> bool:
    """Whether two extracted answers say the same. Symmetric and reflexive; not transitive: 50% is 50, and it is 0.5.

    The first rule that applies decides: two JSON objects or arrays by their values; equal texts (without case, quotes,
    markup); two choices by their letters; two dates or times of day by what they name; two numbers by their exact
    values and units; two formulas by math-verify, within a time limit. Units that differ make two answers different,
    unless one answer has none: 5 is 5 apples and 5 pears, which differ.
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
    choices = _choice(a), _choice(b)
    if all(choices):
        return choices[0] == choices[1]
    days = dates.read(bare(a)), dates.read(bare(b))
    if days[0] and days[1]:
        return days[0] == days[1]
    values = _values(bare(a), bare(b))
    if values[0] and values[1]:
        return values[0].same(values[1])
    if any(choices) and any(values):
        return False
    return symbolic.are_formulas(a, b) and symbolic.equal(a, b)


def _values(a: str, b: str) -> tuple[numbers.Number | None, numbers.Number | None]:
    """The numbers of two answers, each without the name that the other leaves out: x = 5 and 5, not x = 5 and y = 5.

    Two answers with nothing but a comma between digits may be lists, 1,2 and 2,1; they are no numbers then.
    """
    if _TWO_OR_DECIMAL.fullmatch(a) and _TWO_OR_DECIMAL.fullmatch(b):
        return None, None
    names = _NAME.match(a), _NAME.match(b)
    if names[0] and names[1] and names[0][1] != names[1][1]:
        return None, None
    return numbers.read(a[names[0].end() :] if names[0] else a), numbers.read(b[names[1].end() :] if names[1] else b)


def groups(answers: Sequence[str | None]) -> tuple[tuple[int, ...], ...]:
    """The indices of equal answers, one group per answer, in order of first appearance; None is in no group.

    An answer joins the group whose first member it equals. If it equals that of several, as 50% equals 50 and 1/2, it
    joins the largest at last, so that the order of the answers does not matter; of equally large ones the first.
    """
    found: list[tuple[str, list[int]]] = []
    unclear: list[tuple[int, list[list[int]]]] = []
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        equal = [indices for first, indices in found if are_equal(first, answer)]
        if len(equal) > 1:
            unclear.append((index, equal))
        elif equal:
            equal[0].append(index)
        else:
            found.append((answer, [index]))
    sizes = [[len(indices) for indices in equal] for _, equal in unclear]
    for (index, equal), lengths in zip(unclear, sizes, strict=True):
        equal[lengths.index(max(lengths))].append(index)
    merged = _merged(answers, [indices for _, indices in found])
    return tuple(tuple(sorted(indices)) for indices in merged)


def _merged(answers: Sequence[str | None], found: list[list[int]]) -> list[list[int]]:
    """Groups of one member join the largest group of which most members equal it: 0.5 that of 1/2, 50% and 50 %."""

    def most_equal(group: list[int], answer: str | None) -> bool:
        return 2 * sum(are_equal(answers[each] or "", answer or "") for each in group) > len(group)

    kept = [each for each in found if len(each) > 1]
    larger = [tuple(each) for each in kept]
    for each in found:
        if len(each) > 1:
            continue
        equal = [number for number, group in enumerate(larger) if most_equal([*group], answers[each[0]])]
        if equal:
            kept[max(equal, key=lambda number: len(larger[number]))].append(each[0])
        else:
            kept.append(each)
    return sorted(kept, key=min)


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
