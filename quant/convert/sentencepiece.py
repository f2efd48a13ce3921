"""The pieces of a SentencePiece `tokenizer.model`: the few fields needed of its protocol buffer message.

Field numbers: sentencepiece_model.proto of google/sentencepiece (ModelProto.pieces = 1; SentencePiece.piece = 1,
score = 2, type = 3). The wire format: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf import TokenType  # the numbers of SentencePiece's own types

from runtime.base.errors import PULL_AGAIN, BadModelFile

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Piece:
    text: bytes
    score: float
    type: int


def read_pieces(raw: bytes, path: Path) -> tuple[Piece, ...]:
    """The vocabulary in `raw`, the content of `path`. Raises BadModelFile."""
    try:
        pieces = tuple(_piece(value) for number, value in _fields(raw) if number == 1 and isinstance(value, bytes))
    except (IndexError, struct.error):
        raise BadModelFile(path, "ends in the middle of a field", hint=PULL_AGAIN) from None
    except ValueError as error:
        raise BadModelFile(path, f"not a SentencePiece model: {error}", hint=PULL_AGAIN) from None
    if not pieces:
        raise BadModelFile(path, "not a SentencePiece model: it has no pieces", hint=PULL_AGAIN)
    return pieces


def _piece(raw: bytes) -> Piece:
    text, score, kind = b"", 0.0, int(TokenType.NORMAL)
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            text = value
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    text.decode("utf-8")
    if not math.isfinite(score) or not TokenType.NORMAL <= kind <= TokenType.BYTE:
        raise ValueError("a piece has no proper score or type")
    return Piece(text, score, kind)


def _fields(raw: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Number and value of each field of a message: integers, four-byte floats, and everything of a length as bytes."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(raw, at)
            yield number, value
        elif kind == _BYTES:
            length, at = _varint(raw, at)
            if length > len(raw) - at:
                raise IndexError
            yield number, raw[at : at + length]
            at += length
        elif kind == _FOUR_BYTES:
            yield number, struct.unpack_from("<f", raw, at)[0]
            at += 4
        elif kind == _EIGHT_BYTES:
            struct.unpack_from("<d", raw, at)
            at += 8
        else:
            raise ValueError(f"a field of the unknown kind {kind}")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, the lowest first, and where the next field begins."""
    value = 0
    for number in range(10):
        byte = raw[at + number]
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, at + number + 1
    raise ValueError("an integer of more than ten bytes")
