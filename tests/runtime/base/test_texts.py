from __future__ import annotations

import codecs
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import NotFound, UsageError
from runtime.base.texts import decode_text, json_text, parse_json, read_text, read_toml

WINDOWS = "Grüße, 42 €\r\nund mehr\r\n"


@pytest.mark.parametrize(
    "data",
    [
        WINDOWS.encode(),
        codecs.BOM_UTF8 + WINDOWS.encode(),
        codecs.BOM_UTF16_LE + WINDOWS.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + WINDOWS.encode("utf-16-be"),
        WINDOWS.encode("utf-16-le"),
        WINDOWS.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + WINDOWS.encode("utf-32-le"),
    ],
    ids=["utf-8", "with mark", "utf-16-le", "utf-16-be", "le without mark", "be without mark", "utf-32"],
)
def test_texts_of_any_program_are_read(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    assert read_text(file) == "Grüße, 42 €\nund mehr\n"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x7fELF\0\0\0", "NUL"),
        (b"a\0b", "NUL"),
        ("Grüße".encode("cp1252"), "byte 2 is wrong"),
        (codecs.BOM_UTF16_LE + b"a", "is wrong"),
        (b"\xff\xfe\x00\xd8", "is wrong"),
        (b"\xed\xa0\x80", "is wrong"),
        (bytes(64), "NUL"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(data: bytes, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        decode_text(data, "a.bin")
    assert caught.value.message.startswith("a.bin is not a text file") and "\n" not in caught.value.message
    assert caught.value.hint == "save it as UTF-8"


@given(st.binary(max_size=64))
def test_any_bytes_are_a_text_or_a_usage_error(data: bytes) -> None:
    try:
        text = decode_text(data, "x")
    except UsageError:
        return
    assert "\0" not in text and "\r" not in text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), max_size=40))
def test_utf_8_is_never_taken_for_something_else(text: str) -> None:
    assert decode_text(text.encode(), "x") == text


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_text(tmp_path / "none")
    with pytest.raises(UsageError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_text(Path("a\0b"))
    assert read_text(Path(os.devnull)) == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_pipe_is_read_to_its_end_and_not_waited_for_without_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(UsageError, match="it is a pipe, and no program writes into it"):
        read_text(tmp_path / "p")
    writes = "import sys\nwith open(sys.argv[1], 'w') as p:\n for i in range(3):\n  print(i, file=p, flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", writes, str(tmp_path / "p")]):
        assert read_text(tmp_path / "p") == "0\n1\n2\n"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_is_refused() -> None:
    with pytest.raises(UsageError, match="it is a device"):
        read_text(Path("/dev/zero"))


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "1" * 5000, "a = ", "a = 1\na = 2"])
def test_bad_toml_is_a_usage_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="not valid TOML") as caught:
        read_toml(file)
    assert caught.value.hint == f"edit or remove {file}"


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", ""])
def test_bad_json_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="x: not valid JSON"):
        parse_json(text, "x")


@given(st.text(st.characters(), max_size=40))
def test_json_is_safe_and_means_the_same(text: str) -> None:
    written = json_text({"a": text})
    assert json.loads(written) == {"a": text}
    written.encode()
    assert not re.search("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\u2028\u2029\ud800-\udfff]", written)


def test_letters_and_emoji_stay_as_they_are() -> None:
    assert json_text(["é", "👩\u200d💻", "\u009d", "\ud800", "\U000e0041"]) == (
        '["é", "👩\u200d💻", "\\u009d", "\\ud800", "\\udb40\\udc41"]'
    )
