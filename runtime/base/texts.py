"""Reads the texts of people and other programs: UTF-8 or UTF-16, from files and pipes; TOML and JSON. Writes JSON."""

from __future__ import annotations

import codecs
import json
import os
import re
import select
import stat
import time
import tomllib
from pathlib import Path
from typing import Any

from runtime.base.errors import NotFound, UsageError

_MOST_BYTES = 1 << 30
_WRITER_SECONDS = 2.0  # how long a named pipe may have no writer
_AS_UTF8 = "save it as UTF-8"

# C1 controls, the controls of direction and other format characters that nothing shows, line ends, surrogates.
_UNSAFE = re.compile(
    r"[\x7f-\x9f\xad\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)

# The longer mark of UTF-32 begins with the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_text(path: Path) -> str:
    """The text of a file or pipe that a person named, with line ends as "\\n".

    Raises NotFound, and UsageError for something that is no text or cannot be read.
    """
    try:
        data = _bytes_of(path)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", hint="name a file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    return decode_text(data, str(path))


def decode_text(data: bytes, name: str) -> str:
    """The text in `data`, with line ends as "\\n": UTF-8, or UTF-16 as programs of Windows write it.

    Raises UsageError, which calls the data `name`, for anything else and for binary data.
    """
    encoding = next((known for mark, known in _MARKS if data.startswith(mark)), None)
    bare = data if encoding is None else data[len(next(mark for mark, _ in _MARKS if data.startswith(mark))) :]
    try:
        text = bare.decode(encoding or _unmarked(bare))
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not a text file (UTF-8): byte {error.start} is wrong", hint=_AS_UTF8) from None
    if "\0" in text:
        raise UsageError(f"{name} is not a text file: it contains NUL characters", hint=_AS_UTF8)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. Raises as `read_text` does, and UsageError for a text that is not TOML."""
    return parse_toml(read_text(path), str(path))


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The table in a text that people know as `name`. Raises UsageError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise UsageError(f"{name}: not valid TOML: {reason}", hint=f"edit or remove {name}")


def parse_json(text: str, name: str) -> Any:
    """The value in a text that people know as `name`. Raises UsageError."""
    try:
        return json.loads(text)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise UsageError(f"{name}: not valid JSON: {reason}")


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that can be shown at a terminal and written as UTF-8.

    Characters that could control a terminal or turn its text around, line ends of Unicode and halves of characters
    are escaped: no reader of JSON sees a difference.
    """
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(value, ensure_ascii=False, indent=indent))


def _unmarked(data: bytes) -> str:
    """The encoding of data without a mark. In UTF-16 every second byte of most texts is 0, and in UTF-8 none is."""
    sample = data[:4096]
    pairs = len(sample) // 2
    if pairs > 1 and len(data) % 2 == 0:
        first, second = sample[::2].count(0), sample[1::2].count(0)
        for encoding, high, low in (("utf-16-be", first, second), ("utf-16-le", second, first)):
            if high > pairs // 2 and not low:
                return encoding
    return "utf-8"


def _bytes_of(path: Path) -> bytes:
    # Opening a named pipe without a writer would wait for ever.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(number)
        if stat.S_ISFIFO(found.st_mode):
            return _from_pipe(number)
        if stat.S_ISCHR(found.st_mode) and not os.path.samefile(path, os.devnull):
            raise ValueError("it is a device")
        _check_length(found.st_size)
        with os.fdopen(number, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(number)


def _from_pipe(number: int) -> bytes:
    """Everything that comes through a pipe. Waits as long as somebody writes, but not for somebody to begin."""
    data = bytearray()
    written = False
    deadline = time.monotonic() + _WRITER_SECONDS
    while True:
        try:
            piece = os.read(number, 1 << 20)
        except BlockingIOError:  # a writer is there and has nothing to say yet
            written = True
            select.select([number], [], [])
            continue
        if piece:
            written = True
            data += piece
            _check_length(len(data))
        elif written:
            return bytes(data)
        elif time.monotonic() > deadline:
            raise ValueError("it is a pipe, and no program writes into it")
        else:
            time.sleep(0.05)


def _check_length(length: int) -> None:
    if length > _MOST_BYTES:
        raise ValueError(f"it is longer than {_MOST_BYTES >> 30} GiB")
