"""The width of text in terminal columns, and text cut to a width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.width import (
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
