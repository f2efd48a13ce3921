"""A GGUF file, or all shards of a split one, as a source. It is checked strictly and never mapped into memory."""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quant.gguf.keyvalue import KeyValue
from quant.gguf.writer import WRITTEN_HERE, tensor_bytes
from quant.sources.source import Source, TensorSpec
from runtime.base.errors import BadModelFile, DsrError
from runtime.gguf.header import PULL_AGAIN, SCALARS
from runtime.gguf.reader import ArrayValue, Header, TensorInfo, Value, card_from_headers, read_headers
from runtime.gguf.types import BY_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FIXED_PREFIX = 24  # magic, version, number of tensors, number of keys


class GgufSource(Source):
    """A GGUF file as a source, tensors and metadata in the file's order. A context manager.

    Rows are read with pread: several threads may read, a file that shrinks is an error and not a crash, and memory
    holds only the rows asked for."""

    def __init__(self, path: Path, name: str = "") -> None:
        """`path` is shard 1 of a split file, `name` what to call the model (default: the file's name).

        Raises what runtime.gguf.reader.read_card does. The header is read and checked once."""
        files, headers = read_headers(path)
        self.card = card_from_headers(files, headers)
        self._placed = {tensor.name: tensor for tensor in self.card.tensors}
        with ExitStack() as opening:
            self._open = [opening.enter_context(file.open("rb", buffering=0)) for file in files]
            self._stack = opening.pop_all()
        super().__init__(
            self.card.architecture,
            (TensorSpec(tensor.name, tensor.shape, tensor.type) for tensor in self.card.tensors),
            (entry for entry in _entries(self._open[0], headers[0]) if entry.key not in WRITTEN_HERE),
            name=name or path.stem,
            files=files,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

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


def _entries(file: FileIO, header: Header) -> list[KeyValue]:
    """The metadata as bytes. The header was checked, so lengths follow from its values."""
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
    return SCALARS[kind][1].size
