"""Text of a file or another program inside of our own lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.quoted import quoted, quoted_name, spelled


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unknown model architecture: 'next9'", "unknown model architecture: 'next9'"),
        ("x\nyour dsr is too old", r"x\nyour dsr is too old"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\x1b[31mred\x9b0m\x07", r"\x1b[31mred\x9b0m\x07"),
        ("abc\u202ecba\u2066x\u200fy", r"abc\u202ecba\u2066x\u200fy"),
        ("\ud800", r"\ud800"),
        ("  größer 日本語 🙂  ", "größer 日本語 🙂"),
        ("", ""),
    ],
)
def test_what_is_hidden_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert quoted(text) == shown


def test_a_long_text_loses_its_end() -> None:
    assert quoted("a" * 240) == "a" * 240
    assert quoted("a" * 241) == "a" * 239 + "…"
    assert quoted("\n" + "b" * 10**7, 5) == "bbbb…"


@given(st.text(), st.integers(2, 40))
def test_the_result_is_always_one_short_printable_line(text: str, most: int) -> None:
    line = quoted(text, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
    assert all(c.isprintable() or c.isspace() for c in line)


def test_a_name_has_at_most_eighty_characters() -> None:
    assert quoted_name("a" * 81) == "a" * 79 + "…"


def test_values_are_spelled_in_one_short_line() -> None:
    assert [spelled(value) for value in ("a\n'b", 7, None, True, [1, "x"], b"\0")] == [
        '"a\\n\'b"', "7", "None", "True", "[1, 'x']", "b'\\x00'"
    ]  # fmt: skip
    assert spelled("a" * 80) == f"'{'a' * 80}'"
    assert spelled("a" * 81) == f"'{'a' * 80}…"
    assert spelled(10**5000) == "an integer of over 60 digits"
    assert len(spelled({"a": "b" * 1000})) < 90
