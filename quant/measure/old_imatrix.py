"""The importance matrix's old format, which llama-imatrix wrote before GGUF and writes today with --output-format dat.

The layout is that of common_imatrix_load_legacy (common/imatrix-loader.cpp of llama.cpp as vendored in llama-cpp-python
0.3.36), little-endian: the number of entries; for each one the length of its name, the name, the number of chunks, the
number of values, and the values, which are means times chunks; then the chunks of all, and the name of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import BadModelFile, DsrError
from runtime.base.file_kind import file_kind
from runtime.base.safetensors import LONGEST_NAME

_MOST_ENTRIES = 1 << 20
_MAKE_ONE = "make one: dsr imatrix MODEL"
_AGAIN = "the file is damaged or incomplete: get it again"


@dataclass(frozen=True, slots=True, eq=False)
class OldImatrix:
    """`sums` are float32, by the name of the weight; `chunks` is what they were multiplied by, also by name."""

    sums: Mapping[str, NDArray[np.float32]]
    chunks: Mapping[str, int]
    chunk_count: int
    datasets: tuple[str, ...]


def read_old(path: Path) -> OldImatrix:
    """Read a file of the old format. Raises BadModelFile (damaged, or another kind of file), DsrError."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            _check_kind(path, file.read(8 + LONGEST_NAME), size)
            file.seek(0)
            return _read(path, file, size)
    except OSError as error:
        raise DsrError(f"{path}: {error.strerror or error}") from error


def _check_kind(path: Path, start: bytes, size: int) -> None:
    """Raise unless the file begins with a number of entries and the name of a weight."""
    entries, length = (int.from_bytes(start[at : at + 4], "little", signed=True) for at in (0, 4))
    name = start[8 : 8 + length] if 0 < length <= LONGEST_NAME else b""
    if len(start) > 8 and 0 < entries <= _MOST_ENTRIES and name and _is_name(name):
        return
    kind = file_kind(start, size) or f"a file of {size} bytes of another kind"
    raise BadModelFile(path, f"{kind}, not an importance matrix", hint=_MAKE_ONE)


def _is_name(name: bytes) -> bool:
    return all(32 < byte < 127 for byte in name)


def _read(path: Path, file: BinaryIO, size: int) -> OldImatrix:
    def damaged(problem: str) -> BadModelFile:
        return BadModelFile(path, problem, hint=_AGAIN)

    def raw(length: int, what: str) -> bytes:
        if length > size - file.tell():
            raise damaged(f"ends in the middle of {what}")
        return file.read(length)

    def integer(what: str) -> int:
        return int.from_bytes(raw(4, what), "little", signed=True)

    sums: dict[str, NDArray[np.float32]] = {}
    chunks: dict[str, int] = {}
    count = integer("its head")
    for number in range(1, count + 1):
        what = f"entry {number} of {count}"
        length = integer(what)
        if not 0 < length <= LONGEST_NAME:
            raise damaged(f"{what} has a name of {length} bytes")
        written = raw(length, what)
        if not _is_name(written):
            raise damaged(f"{what} has an impossible name")
        name = written.decode("ascii")
        if name in sums:
            raise damaged(f"{name} is there twice")
        chunks[name], values = integer(what), integer(what)
        if values < 1:
            raise damaged(f"{name} has {values} values")
        found = np.frombuffer(raw(4 * values, what), "<f4").astype(np.float32)
        if not (np.isfinite(found).all() and found.min() >= 0):
            raise damaged(f"{name} has values that are negative or not finite")
        sums[name] = found
    chunk_count = 0
    datasets: tuple[str, ...] = ()
    if file.tell() < size:
        chunk_count = integer("the number of chunks")
    if file.tell() < size:
        text = raw(max(integer("the name of the text"), 0), "the name of the text")
        datasets = (text.decode("utf-8", "replace"),) if text else ()
    if file.tell() < size:
        raise damaged(f"{size - file.tell()} bytes after its end")
    return OldImatrix(sums, chunks, max(chunk_count, 0), datasets)
