"""The source of a quantization: a model as named tensors of float rows, whose weights are in any format.

`GgufSource` is a GGUF file as a source. The source of original weights is in `quant.convert.conversion`.
"""

from __future__ import annotations

import math
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quant.gguf.writer import WRITTEN_HERE, KeyValue, tensor_bytes
from runtime.base.errors import PULL_AGAIN, BadModelFile, DsrError, UsageError, VerificationFailed
from runtime.base.quoted import quoted_name
from runtime.gguf.header import Header, TensorInfo
from runtime.gguf.reader import card_from_headers, read_headers
from runtime.gguf.tensor_name import NamedTensor
from runtime.gguf.types import BY_NAME
from runtime.gguf.values import SCALARS, STRING, ArrayValue, Value

_OTHER_WEIGHTS = "if dsr pull finds no fault in the file, take other weights of the model"

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FIXED_PREFIX = 24  # magic, version, number of tensors, number of keys

Importance = Mapping[str, "NDArray[np.float32]"]


class Shaped:
    """Sizes that follow from a shape in ggml order, which has the row length first."""

    __slots__ = ()
    shape: tuple[int, ...]

    @property
    def row_length(self) -> int:
        return self.shape[0]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def slices(self) -> int:
        """Matrices that are stacked in this tensor (experts, heads). Each has an importance of its own."""
        return math.prod(self.shape[2:])

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class TensorSpec(Shaped, NamedTensor):
    """One tensor of the model to write: its GGUF name, its shape in ggml order (row length first), and the type in
    which the source stores it ("BF16", "F16", "F32", "F8_E4M3", "Q8_0", ...)."""

    name: str
    shape: tuple[int, ...]
    stored: str


class Source(ABC):
    """A model to convert or quantize, checked when it was opened: its tensors, its metadata, and rows of its weights.

    `tensors` and `metadata` are in the order in which the file will have them; `metadata` lacks the keys of
    quant.gguf.writer.WRITTEN_HERE. `files` are read later, so they must not change or be overwritten. `importance` is
    what an importance matrix says, by tensor name: the mean squared activation of each column, (slices, row length);
    None without a matrix. `added` is metadata that replaces the source's and comes last.
    """

    def __init__(
        self,
        architecture: str,
        tensors: Iterable[TensorSpec],
        metadata: Iterable[KeyValue] = (),
        *,
        name: str = "model",
        files: Iterable[Path] = (),
    ) -> None:
        self.name = name
        self.architecture = architecture
        self.tensors = tuple(tensors)
        self.metadata = tuple(metadata)
        self.files = tuple(files)
        self.importance: Importance | None = None
        self.added: tuple[KeyValue, ...] = ()

    def with_importance(self, importance: Importance, added: Iterable[KeyValue] = ()) -> Self:
        """The same source together with an importance matrix. Raises UsageError for a matrix of another model."""
        for tensor in self.tensors:
            values = importance.get(tensor.name)
            if values is not None and values.size != tensor.row_length * tensor.slices:
                raise UsageError(
                    f"the importance matrix is of another model: {values.size} values for {tensor.name}, "
                    f"which has {tensor.slices} x {tensor.row_length}",
                    hint="make one of this model: dsr imatrix",
                )
        other = copy(self)
        other.importance, other.added = importance, tuple(added)
        return other

    def unsound(self, tensor: str, error: VerificationFailed) -> VerificationFailed:
        """The error for weights that cannot be stored, with the name of what holds them. `error` says what is wrong."""
        where = self.name if not self.files else self.files[0] if len(self.files) == 1 else self.files[0].parent
        return VerificationFailed(f"{where}: {quoted_name(tensor)}: {error.message}", hint=error.hint or _OTHER_WEIGHTS)

    def has_importance(self, name: str) -> bool:
        """Whether the importance matrix has an entry for the tensor called `name`."""
        return self.importance is not None and name in self.importance

    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8] | None:
        """The same rows as the file to write has them, (count, bytes of a row), for a tensor that keeps its type. None
        if the source has them in another form: then they are read. Called from several threads at once."""
        return None

    @abstractmethod
    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """`count` rows from row `first` on, as (count, row_length). Rows run over all dimensions but the first.

        Called from several threads at once.
        """


class GgufSource(Source):
    """A GGUF file as a source, tensors and metadata in the file's order. A context manager.

    Rows are read with pread: several threads may read, a file that shrinks is an error and not a crash, and memory
    holds only the rows asked for."""

    def __init__(self, path: Path, name: str = "") -> None:
        """`path` is shard 1 of a split file, `name` the name of the model (default: the file's name).

        Raises the errors of runtime.gguf.reader.read_card. The header is read and checked once."""
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
        """Returns rows as numbers, from any stored type."""
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
        at += 8 + struct.unpack_from("<Q", data, at)[0]  # not the length of `key`, where bytes may be replaced
        end = at + 4 + _encoded_length(value, data, at)
        entries.append(KeyValue(key, data[at:end]))
        at = end
    return entries


def _encoded_length(value: Value, data: bytes, at: int) -> int:
    kind = struct.unpack_from("<I", data, at)[0]
    if isinstance(value, ArrayValue):
        return 12 + len(value.data)
    if kind == STRING:
        return 8 + int(struct.unpack_from("<Q", data, at + 4)[0])
    return SCALARS[kind][1].size
