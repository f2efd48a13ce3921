"""Expressions of tokenizers match as Python's own engine does, and never longer than their budget."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.convert.expression import Expression, NotUnderstood


def found(source: str, text: str) -> list[str]:
    return [text[begin:end] for begin, end in Expression(source).spans(text)]


@pytest.mark.parametrize(
    ("source", "text", "matches"),
    [
        (r"\p{L}+|\p{N}", "aé1²x", ["aé", "1", "²", "x"]),
        (r"\P{L}+|\p{^L}", "ab12c", ["12"]),
        (r"\p{Lu}\p{Ll}*", "HelloWorld", ["Hello", "World"]),
        (r"[\p{L}&&[^\p{Han}]]+", "ab漢字cd", ["ab", "cd"]),
        (r"\p{Han}+|\p{Hangul}", "漢字한a", ["漢字", "한"]),
        (r"(?i:'s|'t)", "it'S 'T't", ["'S", "'T", "'t"]),
        (r"[^\r\n\p{L}]?+\p{L}+", " a\nb", [" a", "b"]),
        (r" ?[^\s\p{L}]++[\r\n]*", " !!\n?", [" !!\n", "?"]),
        (r"\s+(?!\S)|\s+", "  a ", [" ", " ", " "]),
        (r"\d{1,3}(?=(?:\d{3})*\b)", "1234567", ["1", "234", "567"]),
        (r"(?<=a)b|(?<!a)c", "abcac", ["b", "c"]),
        (r"[\[\]\-^a]+", "-[^a]b", ["-[^a]"]),
        (r"[!-/:-@\[-`{-~]", "a/[", ["/", "["]),
        (r"\x{4e00}|\u4e01|\x41", "一丁A", ["一", "丁", "A"]),
        (r"a{2}|b{2,}|c{,2}", "aaabbbccc", ["aa", "bbb", "cc", "c"]),
        (r"a+?b?", "aab", ["a", "ab"]),
        (r"^a|b$", "a\na b", ["a", "a", "b"]),
        (r"(?>a+)b", "aab", ["aab"]),
    ],
)
def test_the_syntax_of_tokenizers(source: str, text: str, matches: list[str]) -> None:
    assert found(source, text) == matches


@pytest.mark.parametrize(
    "source",
    ["(", ")", "[a", "a**", "*", "(?P<x>a)", r"\p{Xx}", r"\k<a>", "a{3", "a{x}", "[b-a]", "(?i)a", "\\", r"\x{zz}"],
)
def test_other_syntax_is_not_understood(source: str) -> None:
    with pytest.raises(NotUnderstood):
        Expression(source)


@pytest.mark.parametrize("source", ["(?:a|a)*b", "(?:a*)*b", "(?:a?){30}a{30}b", "(?=(?:a|a)*b)a"])
def test_an_expression_that_would_take_years_is_given_up(source: str) -> None:
    with pytest.raises(NotUnderstood):
        found(source, "a" * 200)


PART = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\s", r"\d", "(?:a|bc)", "(?=a)", "(?!b)", "(b)", "(?:)"])
REPEATED = st.builds(str.__add__, PART, st.sampled_from(["", "", "*", "+", "?", "{1,2}"]))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.lists(REPEATED, min_size=1, max_size=3).map("".join), min_size=1, max_size=3),
    st.text("abc 1\n", max_size=12),
)
def test_matches_are_those_of_python(ways: list[str], text: str) -> None:
    source = "|".join(ways)
    try:
        mine = found(source, text)
        theirs = re.compile(source)
    except (NotUnderstood, re.error):
        return
    wanted, at = [], 0
    while at < len(text):
        match = theirs.match(text, at)
        if match is not None and match.end() > at:
            wanted.append(match[0])
        at = match.end() if match is not None and match.end() > at else at + 1
    assert mine == wanted


@settings(max_examples=300, deadline=None)
@given(st.text("ab()[]{}|*+?^$.\\\\pLN,12-&:=!<i", max_size=25))
def test_no_expression_does_more_than_not_be_understood(source: str) -> None:
    with suppress(NotUnderstood):
        found(source, "aab 12\n-[")
