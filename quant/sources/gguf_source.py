"""A GGUF file, or all shards of a split one, as a source: checked strictly, read in pieces, never mapped."""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quant.gguf.writer import WRITTEN_HERE, tensor_bytes
from quant.sources.source import KeyValue, TensorSpec
from runtime.base.errors import BadModelFile, DsrError
from runtime.gguf.card import ModelCard
from runtime.gguf.header import PULL_AGAIN
from runtime.gguf.reader import ArrayValue, Header, TensorInfo, Value, read_card, read_header
from runtime.gguf.types import BY_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FIXED_PREFIX = 24  # magic, version, number of tensors, number of keys
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class GgufSource:
    """Tensors and metadata in the file's order. Reads with pread, so several threads may read, a file that shrinks is
    an error instead of a dead process, and memory holds only what was asked for. A context manager."""

    def __init__(self, path: Path) -> None:
        """`path` is shard 1 of a split file. Raises what runtime.gguf.reader.read_card does."""
        card = read_card(path)
        self._card = card
        self.files = card.files
        self._placed = {tensor.name: tensor for tensor in card.tensors}
        self._tensors = tuple(TensorSpec(tensor.name, tensor.shape, tensor.type) for tensor in card.tensors)
        self._metadata = tuple(
            entry for entry in _entries(card.files[0], read_header(card.files[0])) if entry.key not in WRITTEN_HERE
        )
        self._stack = ExitStack()
        with ExitStack() as opening:
            self._open = [opening.enter_context(file.open("rb", buffering=0)) for file in card.files]
            self._stack = opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def architecture(self) -> str:
        return self._card.architecture

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        return self._tensors

    @property
    def metadata(self) -> tuple[KeyValue, ...]:
        return self._metadata

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """Rows as numbers, whatever type they are stored in."""
        from runtime.llama import dequantize_rows

        return dequantize_rows(BY_NAME[tensor.stored].number, self.stored_rows(tensor, first, count))

    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as the file has them, (count, bytes of a row)."""
        import numpy as np

        width = tensor_bytes(tensor.stored, (tensor.row_length,))
        placed = self._placed[tensor.name]
        data = self._pread(placed, placed.offset + first * width, count * width)
        return np.frombuffer(data, np.uint8).reshape(count, width)

    def _pread(self, tensor: TensorInfo, at: int, length: int) -> bytes | bytearray:
        handle, file = self._open[tensor.file].fileno(), self.files[tensor.file]
        try:
            data: bytes | bytearray = os.pread(handle, length, at)
            while len(data) < length:  # a system call has a limit
                more = os.pread(handle, length - len(data), at + len(data))
                if not more:
                    raise BadModelFile(file, f"became shorter while {tensor.name} was read", hint=PULL_AGAIN)
                data = bytearray(data) + more
        except OSError as error:
            raise DsrError(f"{file}: {error.strerror or error}") from error
        return data


def _entries(path: Path, header: Header) -> list[KeyValue]:
    """The metadata as bytes. The header was checked, so lengths follow from its values."""
    with path.open("rb") as file:
        data = file.read(header.data_offset)
    entries, at = [], _FIXED_PREFIX
    for key, value in header.metadata.items():
        at += 8 + len(key.encode())
        end = at + 4 + _encoded_length(value, struct.unpack_from("<I", data, at)[0])
        entries.append(KeyValue(key, data[at:end]))
        at = end
    return entries


def _encoded_length(value: Value, kind: int) -> int:
    if isinstance(value, ArrayValue):
        return 12 + len(value.data)
    if isinstance(value, str):
        return 8 + len(value.encode())
    return _SCALAR_BYTES[kind]
