"""What a file is, by its first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base import file_kind as kinds
from runtime.base.file_kind import START, file_kind


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", kinds.EMPTY),
        (bytes(600), kinds.ZEROS),
        (b"GGUF\3\0\0\0", kinds.GGUF),
        (b"version https://git-lfs.github.com/spec/v1\n", kinds.LFS_POINTER),
        (b"\xef\xbb\xbf\n <html>", kinds.WEB_PAGE),
        (b"<?xml version='1.0'?>", kinds.WEB_PAGE),
        (b"< 5 and > 3", kinds.TEXT),
        (b"PK\3\4", kinds.ARCHIVE),
        (b"\x80\5\x95", kinds.PICKLE),
        (b"\x80\6\x95", ""),
        (b"lmgg", kinds.OLD_GGML),
        (b"Rar!\x1a", "a compressed file (rar)"),
        ((20).to_bytes(8, "little") + b'{"a": 1}' + bytes(40), kinds.SAFETENSORS),
        ((225).to_bytes(4, "little") + (22).to_bytes(4, "little") + b"blk.0.attn_output", kinds.OLD_IMATRIX),
        (b' {"a": 1}', kinds.JSON),
        (b"once upon a time", kinds.TEXT),
        (b"one\0two", ""),
        (b"\xff\xfe\xfd", ""),
    ],
)
def test_files_are_known_by_their_first_bytes(start: bytes, kind: str) -> None:
    assert file_kind(start, len(start)) == kind


def test_a_text_that_is_cut_inside_a_character_is_a_text() -> None:
    text = "ä" * START
    assert {file_kind(b" " * shift + text.encode(), 9999) for shift in range(4)} == {kinds.TEXT}


@given(st.binary(max_size=600), st.integers(0, 1 << 62))
def test_any_bytes_are_of_one_kind(start: bytes, size: int) -> None:
    assert isinstance(file_kind(start, size), str)
