"""What a file is, by its first bytes, so that an error can name the file that came instead of the wanted one."""

from __future__ import annotations

import codecs
import re

# As many first bytes as `file_kind` looks at.
START = 512

EMPTY, ZEROS = "an empty file", "a file of zeros only"
LFS_POINTER = "a Git LFS pointer (a few lines of text)"
WEB_PAGE = "a web page"
GGUF = "a GGUF file"
SAFETENSORS = "a safetensors file"
PICKLE = "a Python pickle"
ARCHIVE = "a zip archive (perhaps a PyTorch checkpoint)"
OLD_GGML = "an old GGML file, from before GGUF"
OLD_IMATRIX = "an importance matrix in the old format (.dat)"
JSON = "JSON"
TEXT = "a text file"
_COMPRESSED = "a compressed file"

_MAGICS = (
    (b"GGUF", GGUF),
    (b"PK\x03\x04", ARCHIVE),
    *((b"\x80" + bytes((version,)), PICKLE) for version in (2, 3, 4, 5)),
    *((magic, OLD_GGML) for magic in (b"tjgg", b"ggml", b"lmgg", b"fmgg")),  # ggml, ggmf and ggjt, little-endian
    *(
        (magic, f"{_COMPRESSED} ({program})")
        for magic, program in (
            (b"\x1f\x8b", "gzip"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"7z\xbc\xaf", "7z"),
            (b"Rar!", "rar"),
        )
    ),
)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<[A-Za-z!?]")
_IMATRIX_ENTRY = b"blk."


def file_kind(start: bytes, size: int) -> str:
    """What a file of `size` bytes that begins with `start` is: "a web page"; "" for a file of an unknown kind."""
    start = start[:START]
    if size == 0:
        return EMPTY
    if not start.strip(b"\0"):
        return ZEROS
    if start.startswith(b"version https://git-lfs"):
        return LFS_POINTER
    if _MARKUP.match(start):
        return WEB_PAGE
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return SAFETENSORS
    # A count, then the length and the name of the first tensor (tools/imatrix in llama.cpp).
    if start[8:12] == _IMATRIX_ENTRY:
        return OLD_IMATRIX
    for magic, kind in _MAGICS:
        if start.startswith(magic):
            return kind
    if start.lstrip()[:1] in (b"{", b"["):
        return JSON
    return TEXT if _is_text(start) else ""


def is_compressed(kind: str) -> bool:
    return kind.startswith(_COMPRESSED)


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # `start` may end inside a character
    except UnicodeDecodeError:
        return False
    return b"\0" not in start
