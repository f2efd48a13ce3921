"""The Game of 24: steps and expressions are checked exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.strategies import game24


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("4 + 9 = 13 (left: 10 13 13)", "10 13 13"),
        ("- 13 - 10 = 3 (left: 3, 4, 9)", "3 4 9"),
        ("10 × 4 = 40 (Left: 9 13 40)", "9 13 40"),
        ("4/10 = 2/5 (left: 2/5 9 13)", "2/5 9 13"),
        ("4 / 10 = 0.4", "2/5 9 13"),
        ("4 - 10 = -6 (left: -6 9 13)", "-6 9 13"),
        # Wrong in one part or another.
        ("4 + 9 = 14 (left: 10 13 14)", None),
        ("4 + 5 = 9 (left: 9 10 13)", None),
        ("9 + 9 = 18 (left: 4 10 13 18)", None),
        ("4 + 9 = 13 (left: 9 10 13)", None),
        ("4 + 9 = 13 (left: ten)", None),
        ("4 / 0 = 0", None),
        ("4 + 9 = 1/0", None),
        ("add the first two", None),
        ("", None),
    ],
)
def test_a_step_leads_on_only_when_all_of_it_is_right(line: str, left: str | None) -> None:
    found = game24.after(line, game24.start("4 9 10 13"))
    assert (None if found is None else game24.shown(found)) == left


def test_steps_make_the_expression() -> None:
    terms = game24.start("Use 4 9 10 13 to make 24.")
    for line in ("10 - 4 = 6 (left: 6 9 13)", "13 - 9 = 4 (left: 4 6)", "6 * 4 = 24 (left: 24)"):
        assert game24.solution(terms) is None
        found = game24.after(line, terms)
        assert found is not None
        terms = found
    expression = game24.solution(terms)
    assert expression == "(10 - 4) * (13 - 9)"
    assert game24.solves(expression, [4, 9, 10, 13])


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("(10 - 4) * (13 - 9) = 24", True),
        ("(13 − 9) × (10 − 4)", True),
        ("8 / (3 - 8 / 3)", False),
        ("(10 - 4) * 4", False),
        ("(10 - 4) * (13 - 9) * 1", False),
        ("10 + 4 + 13 - 9", False),
        ("13 // 9 + 10 + 4", False),
        ("4 ** 9 ** 10 ** 13", False),
        ("__import__('os')", False),
        ("(" * 150 + "4", False),
        ("True + 23", False),
        ("", False),
    ],
)
def test_an_expression_uses_the_numbers_and_makes_24(expression: str, right: bool) -> None:
    assert game24.solves(expression, [4, 9, 10, 13]) is right


def test_fractions_are_exact() -> None:
    assert game24.solves("8 / (3 - 8 / 3)", [3, 3, 8, 8])


@pytest.mark.parametrize(
    ("question", "numbers"),
    [("4 9 10 13", "4 9 10 13"), ("Make 24 from 1, 2, 3 and 4", "1 2 3 4"), ("1 2 3 24 -> 24", "1 2 3 24")],
)
def test_the_numbers_are_read_from_the_question(question: str, numbers: str) -> None:
    assert game24.shown(game24.start(question)) == numbers


@pytest.mark.parametrize("question", ["1 2 3", "what is it?", "1 2 3 4 5"])
def test_other_questions_are_no_game(question: str) -> None:
    with pytest.raises(UsageError, match="four numbers"):
        game24.start(question)


@given(st.text("0123456789+-*/=.() left:", max_size=60))
def test_a_step_never_makes_up_numbers(line: str) -> None:
    found = game24.after(line, game24.start("1 2 3 4"))
    assert found is None or (len(found) == 3 and game24.solves(found[-1].made, [1, 2, 3, 4]) is False)
