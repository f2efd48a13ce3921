"""Where texts are cut before they are tokenized."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.llama import text_pieces
from runtime.llama.text_pieces import LONGEST, SpecialToken, has_long_stretch, pieces, split_at_specials

texts = st.lists(
    st.tuples(st.text(" \n-x7中.,'é\u0301/a", min_size=1, max_size=3), st.sampled_from((1, 2, 5, 200, 300, 600))),
    max_size=6,
).map(lambda runs: "".join(unit * count for unit, count in runs))


@given(texts)
def test_pieces_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(texts)
def test_no_piece_has_a_long_stretch(text: str) -> None:
    parts = list(pieces(text))
    assert all(parts)
    assert not any(map(has_long_stretch, parts))
    assert has_long_stretch(text) or parts == [text][: len(text)]


def test_ordinary_text_is_one_piece() -> None:
    text = "A sentence of some words, and another one.\nA second line; 17 words\n" * 100
    assert list(pieces(text)) == [text]
    assert not has_long_stretch(text)


@pytest.mark.parametrize("unit", [" ", "-", "x", "7", "中", "🙂", "'s", "\n", "\r\n", "-="])
def test_a_long_run_is_cut(unit: str) -> None:
    assert has_long_stretch(unit * LONGEST + "x")
    assert max(map(len, pieces("a. " + unit * 10_000 + " b."))) <= LONGEST


def test_long_stretches_are_cut_at_the_end_of_a_word() -> None:
    first, second = pieces("word " * 103)
    assert (first, second) == ("word" + " word" * 101, " word ")
    assert [len(part) for part in pieces("x" * 400 + "=" * 400)] == [400, 400]


def test_digits_are_cut_in_threes() -> None:
    assert [len(part) for part in pieces("7" * 1200)] == [510, 510, 180]


def test_the_text_before_and_after_a_long_run_stays_whole() -> None:
    before, after = "one, two.\n" * 200 + "Now", " end, and so on.\n" * 100
    parts = list(pieces(before + "\n" + "-" * 600 + "." + after))
    assert parts == [before, "\n" + "-" * 509, "-" * 91 + ".", after]


def test_very_long_texts_are_cut_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_pieces, "_CALL", 25)
    assert list(pieces("one, two, three, four, five, six")) == ["one, two, three, four,", " five, six"]


# Special tokens

END = SpecialToken(1, "<|end|>")
THINK = SpecialToken(2, "<think>")


def test_special_tokens_are_found_by_their_spelling() -> None:
    assert split_at_specials("a<think>b<|end|><|end|>", [END, THINK]) == [(0, 1), 2, (8, 9), 1, 1]
    assert split_at_specials("", [END]) == []
    assert split_at_specials("ab", [END]) == [(0, 2)]


def test_a_longer_spelling_is_looked_for_first() -> None:
    assert split_at_specials("\n\n\n", [SpecialToken(2, "\n\n"), SpecialToken(1, "\n")]) == [2, 1]
    assert split_at_specials("abcd", [SpecialToken(2, "bcd"), SpecialToken(1, "ab")]) == [(0, 1), 2]


def test_a_literal_spelling_is_text() -> None:
    assert split_at_specials("a<|end|>b<|end|>", [END], {1}) == [(0, 9), 1]
    assert split_at_specials("<<<>", [SpecialToken(1, "<<")], {0}) == [(0, 1), 1, (3, 4)]


def test_white_space_next_to_a_token_is_taken() -> None:
    assert split_at_specials("a \n<s> b", [SpecialToken(1, "<s>", lstrip=True)]) == [(0, 1), 1, (6, 8)]
    assert split_at_specials("a <s> \n", [SpecialToken(1, "<s>", rstrip=True)]) == [(0, 2), 1]


@given(st.text("<|>en dx\n", max_size=40), st.sets(st.integers(0, 40)))
def test_parts_cover_the_text_in_order(text: str, literal: set[int]) -> None:
    specials = [SpecialToken(7, "<|end|>"), SpecialToken(3, "end"), SpecialToken(2, "<|"), SpecialToken(1, "\n")]
    spelled = {each.token: each.text for each in specials}
    parts = split_at_specials(text, specials, literal)
    assert "".join(spelled[part] if isinstance(part, int) else text[slice(*part)] for part in parts) == text
    assert all(isinstance(one, int) or isinstance(other, int) for one, other in pairwise(parts))
