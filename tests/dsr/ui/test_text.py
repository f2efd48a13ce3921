"""The width of text in terminal columns, and text cut to a width."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import iter_graphemes

from dsr.ui.text import (
    WordWrap,
    align,
    display_width,
    one_character,
    truncate,
    truncate_middle,
    truncate_start,
    wrap_words,
)

HEART, FAMILY, FLAG = "❤\ufe0f", "👨\u200d👩\u200d👧", "🇩🇪"
TEXTS = st.lists(st.sampled_from(["a", " ", "日", "e\u0301", HEART, FAMILY, FLAG]), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("abc", 3),
        ("", 0),
        (HEART, 2),
        ("❤", 1),
        (FAMILY, 2),
        ("👍🏽", 2),
        (FLAG, 2),
        (FLAG + "🇫🇷", 4),
        ("日本", 4),
        ("한국", 4),
        ("e\u0301", 1),
        ("e\u0301\u0302x", 2),
        ("“αβγ”", 5),
    ],
)
def test_columns_of_a_text(text: str, columns: int) -> None:
    assert display_width(text) == columns


def test_the_width_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERM_PROGRAM", "TERM"):
        monkeypatch.setenv(name, "Apple_Terminal")
    assert [display_width(text) for text in (HEART, FAMILY, FLAG)] == [2, 2, 2]


def test_what_a_reader_sees_as_one_character() -> None:
    assert all(one_character(text) for text in ("a", "日", "e\u0301", HEART, FAMILY, FLAG))
    assert not any(one_character(text) for text in ("ab", "日本", HEART + HEART, FLAG + "🇫", ""))


def test_words_are_wrapped_by_their_width() -> None:
    assert wrap_words("one two three four", 9) == ["one two", "three", "four"]
    assert wrap_words("one two three", 9, hang=2) == ["one two", "  three"]
    assert wrap_words(f"{HEART}{HEART} {FAMILY} {FLAG}", 5) == [f"{HEART}{HEART}", f"{FAMILY} {FLAG}"]
    assert wrap_words("/a/path/longer-than-it two", 9) == ["/a/path/longer-than-it", "two"]


def test_the_start_is_kept() -> None:
    assert [truncate("moonlight", columns) for columns in (9, 5, 1, 0)] == ["moonlight", "moon…", "…", ""]
    assert truncate("the moon", 5) == "the…"
    assert (truncate("漢字漢字", 5), truncate("漢字漢字", 4)) == ("漢字…", "漢…")
    assert truncate(FAMILY + FLAG + "x", 4) == FAMILY + "…"


def test_the_end_is_kept() -> None:
    assert [truncate_start("abcd", columns) for columns in (4, 3, 1, 0)] == ["abcd", "…cd", "…", ""]
    assert (truncate_start("漢字漢字", 5), truncate_start("漢字漢字", 4)) == ("…漢字", "…字")
    assert truncate_start("x" + FLAG + FAMILY, 4) == "…" + FAMILY


def test_both_ends_are_kept() -> None:
    assert truncate_middle("short", 10) == "short"
    assert truncate_middle("model-00001-of-00002.gguf", 13) == "mode…002.gguf"
    assert truncate_middle(HEART + "abcdef" + FLAG, 6) == HEART + "…f" + FLAG
    assert truncate_middle(HEART + "abcdef" + FLAG, 4) == "…" + FLAG


@given(TEXTS, st.integers(0, 12))
def test_what_was_cut_fits_and_splits_no_character(text: str, columns: int) -> None:
    for cut in (truncate(text, columns), truncate_start(text, columns), truncate_middle(text, columns)):
        assert display_width(cut) <= columns
        start, _, end = cut.partition("…")
        assert text.startswith(start) and text.endswith(end)
        whole = text.replace(FAMILY, "F").replace(FLAG, "G").replace(HEART, "H").replace("e\u0301", "é")
        seen = cut.replace(FAMILY, "F").replace(FLAG, "G").replace(HEART, "H").replace("e\u0301", "é")
        assert set(seen) <= set(whole) | {"…"}


PROSE = st.text("ab c,.-日本語。「」\u0301\U0001f600é🇩🇪❤\ufe0f\u200d\n", max_size=120)
FENCED = st.text("`~ab \n", max_size=80)
WIDTHS = st.integers(2, 12)


def wrapped(text: str, width: int) -> str:
    wrap = WordWrap(lambda: width)
    return wrap.feed(text) + wrap.finish()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three", "one two \nthree"),
        ("one two\nthree", "one two\nthree"),
        ("twelve-letters", "twelve-letters"),
        ("a twelve-letters b", "a \ntwelve-letters \nb"),
        ("123456789 b", "123456789 \nb"),
        ("1234567890 b", "1234567890 \nb"),
        ("日本語の文章です", "日本語の\n文章です"),
        ("日本語字。文章", "日本語\n字。文章"),
        ("日本語「文章", "日本語\n「文章"),
        ("abcdef日本", "abcdef日\n本"),
        ("a      bbbbbb", "a      \nbbbbbb"),
        ("a          b", "a         \n b"),
        ("", ""),
        ("\n\n", "\n\n"),
        ("x\ty\tz", "x\ty\n\tz"),
        ("abcdefgh ❤\ufe0f", "abcdefgh \n❤\ufe0f"),
        ("👨\u200d👩\u200d👧" * 5, "👨\u200d👩\u200d👧" * 4 + "\n" + "👨\u200d👩\u200d👧"),
        ("🇩🇪🇫🇷🇮🇹🇪🇸🇵🇹", "🇩🇪🇫🇷🇮🇹🇪🇸\n🇵🇹"),
        ("日本語字e\u0301e\u0301", "日本語字\ne\u0301e\u0301"),
    ],
)
def test_what_ten_columns_make_of_a_text(text: str, expected: str) -> None:
    assert wrapped(text, 10) == expected


def test_a_code_block_stays_as_it_is_and_prose_after_it_does_not() -> None:
    code = "```python\nprint('a very long line', 1, 2, 3)\n```\n"
    assert wrapped(code + "one two three", 10) == code + "one two \nthree"
    assert wrapped("~~~\none two three\n```\none two three\n~~~~\n", 10).count("\n") == 5


def test_a_word_is_shown_when_it_is_whole() -> None:
    wrap = WordWrap(lambda: 10)
    assert [wrap.feed(piece) for piece in ("one", " ", "tw", "o\n", "x")] == ["", "one ", "", "two\n", ""]
    assert wrap.finish() == "x"


def test_a_word_as_long_as_a_line_is_not_held_back_for_ever() -> None:
    wrap = WordWrap(lambda: 4)
    assert [wrap.feed(piece) for piece in "abcdef"] == ["", "", "", "abcd", "e", "f"]


def test_code_is_not_held_back_at_all() -> None:
    wrap = WordWrap(lambda: 10)
    wrap.feed("```\n")
    assert wrap.feed("pri") == "pri"


def test_a_resized_terminal_counts_from_the_next_word_on() -> None:
    width = 10
    wrap = WordWrap(lambda: width)
    shown = wrap.feed("one two ")
    width = 20
    assert shown + wrap.feed("three four five") + wrap.finish() == "one two three four \nfive"


def test_after_the_end_a_new_line_begins() -> None:
    wrap = WordWrap(lambda: 10)
    assert wrap.feed("```") + wrap.finish() == "```"
    assert wrap.feed("one two three") + wrap.finish() == "one two \nthree"


@given(PROSE, WIDTHS)
def test_only_line_breaks_are_added(text: str, width: int) -> None:
    out = wrapped(text, width)
    position = 0
    for character in out:
        if position < len(text) and text[position] == character:
            position += 1
        else:
            assert character == "\n"
    assert position == len(text)


@given(PROSE, WIDTHS)
def test_no_line_is_longer_than_the_width_unless_a_single_word_is(text: str, width: int) -> None:
    for line in wrapped(text, width).split("\n"):
        if display_width(line) > width:
            # A wide character that must not begin a line, or that no line has room for, belongs to its neighbour.
            # A space after an overlong word, with its accents, stays at the end of the line.
            assert " " not in line.rstrip(" \u0301\ufe0f\u200d")
            assert not re.search("[日本語][日本語]", line)


@given(st.one_of(PROSE, FENCED), WIDTHS, st.data())
def test_the_pieces_never_matter(text: str, width: int, data: st.DataObject) -> None:
    wrap = WordWrap(lambda: width)
    rest, out = text, ""
    while rest:
        size = data.draw(st.integers(1, 5))
        out += wrap.feed(rest[:size])
        rest = rest[size:]
    assert out + wrap.finish() == wrapped(text, width)


@given(st.text("ab `\n", max_size=60).filter(lambda code: "```" not in code), WIDTHS)
def test_nothing_is_added_inside_of_a_fence(code: str, width: int) -> None:
    text = f"```\n{code}\n```\n"
    assert wrapped(text, width) == text


@given(PROSE, WIDTHS)
def test_no_character_of_several_code_points_is_split(text: str, width: int) -> None:
    ends = {0, *accumulate(map(len, iter_graphemes(text)))}
    position = 0
    for code_point in wrapped(text, width):
        if position < len(text) and text[position] == code_point:
            position += 1
        else:
            assert position in ends


def test_columns_are_aligned_by_their_width_on_the_screen() -> None:
    rows = [("NAME", "SIZE", "NOTE"), ("日本", "9", "x"), ("a", "10", "")]
    assert align(rows, right=(1,)) == ["NAME  SIZE  NOTE", "日本     9  x", "a       10"]
