"""Shows the tensors of the compute graph while the engine computes them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed
from runtime.base.run import Run
from runtime.engine.backend import Batch
from runtime.llama.native import library
from runtime.llama.scorer import Scorer


class _Tensor(ctypes.Structure):
    """struct ggml_tensor (ggml.h). The layout is private to a release, so `_graph_library` checks it."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.c_void_p * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]
_COMPUTED = 16  # GGML_TENSOR_FLAG_COMPUTE (ggml.h): a backend leaves out nodes without it
_HIDDEN = b"hidden."  # before the name of a tensor whose data the engine must not read from the file
_OBJECT_HEADER = 32  # struct ggml_object (ggml-impl.h), which ggml_tensor_overhead() counts, too
_NUMPY_TYPES: dict[int, np.dtype[Any]] = {0: np.dtype(np.float32), 1: np.dtype(np.float16), 26: np.dtype(np.int32)}


@cache
def _graph_library() -> ctypes.CDLL:
    """libggml-base with the functions that look at a graph's tensors; raises EngineFailed for another layout."""
    base = library("ggml-base")
    base.ggml_tensor_overhead.restype = ctypes.c_size_t
    if ctypes.sizeof(_Tensor) + _OBJECT_HEADER != base.ggml_tensor_overhead():
        raise EngineFailed(f"the engine's tensors are {base.ggml_tensor_overhead()} bytes, laid out in an unknown way")
    base.ggml_op_name.restype = ctypes.c_char_p
    base.ggml_op_name.argtypes = [ctypes.c_int]
    base.ggml_nbytes.restype = ctypes.c_size_t
    base.ggml_nbytes.argtypes = [ctypes.c_void_p]
    base.ggml_backend_buffer_get_base.restype = ctypes.c_void_p
    base.ggml_backend_buffer_get_base.argtypes = [ctypes.c_void_p]
    base.ggml_backend_buffer_get_size.restype = ctypes.c_size_t
    base.ggml_backend_buffer_get_size.argtypes = [ctypes.c_void_p]
    base.ggml_backend_buffer_is_host.restype = ctypes.c_bool
    base.ggml_backend_buffer_is_host.argtypes = [ctypes.c_void_p]
    base.ggml_backend_tensor_get.restype = None
    base.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    base.ggml_backend_tensor_set.restype = None
    base.ggml_backend_tensor_set.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    return base


def check_layout() -> None:
    """Raise EngineFailed if the engine lays out its tensors in a way that `GraphNode` does not know."""
    _graph_library()


_NAME_OFFSET = _Tensor.name.offset


def name_at(address: int) -> bytes:
    """The name of the tensor at `address`, as the engine has it. Quick: it is asked for each node of each pass."""
    return ctypes.string_at(address + _NAME_OFFSET)


_SOURCE_OFFSET = _Tensor.src.offset


def weight_of(address: int) -> int:
    """The identity of the first source of the tensor at `address`; 0 if it has none. Quick, as `name_at`."""
    return ctypes.c_void_p.from_address(address + _SOURCE_OFFSET).value or 0


@cache
def _operation(number: int) -> str:
    return bytes(_graph_library().ggml_op_name(number)).decode()


class GraphNode:
    """One tensor of the compute graph. It and its `values` are valid only during the call that receives it."""

    __slots__ = ("_tensor", "identity")

    def __init__(self, address: int) -> None:
        self.identity = address
        self._tensor = _Tensor.from_address(address)

    @property
    def operation(self) -> str:
        """The operation that computes the tensor: "MUL_MAT", "MUL_MAT_ID", "ADD", ... (ggml_op_name)."""
        return _operation(self._tensor.op)

    @property
    def name(self) -> str:
        """The name. A backend's copy of a weight (CUDA0#blk.0.attn_k.weight#0) has the name of the weight."""
        name = bytes(self._tensor.name)
        return (name.split(b"#")[1] if b"#" in name else name).decode("utf-8", "replace")

    @property
    def own_name(self) -> str:
        """The name as the engine has it, also of a backend's copy."""
        return bytes(self._tensor.name).decode("utf-8", "replace")

    @property
    def shape(self) -> tuple[int, ...]:
        """Four lengths in ggml order: the row first."""
        return tuple(self._tensor.ne)

    @property
    def is_float32(self) -> bool:
        return bool(self._tensor.type == 0)

    @property
    def has_source(self) -> bool:
        return bool(self._tensor.src[0])

    def source(self, number: int) -> GraphNode:
        return GraphNode(self._tensor.src[number])

    @property
    def root(self) -> int:
        """The identity of the tensor whose memory it uses: its own, except for views."""
        return int(self._tensor.view_src or self.identity)

    @property
    def source_roots(self) -> tuple[int, ...]:
        """The `root` of each source."""
        return tuple(GraphNode(source).root for source in self._tensor.src if source)

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return int(_graph_library().ggml_nbytes(self.identity))

    def leave_out(self) -> None:
        """Before the node is computed: do not compute it, so that its memory keeps what is there. Undo it within the
        pass with `take_in`, because the engine may use the graph again."""
        self._tensor.flags &= ~_COMPUTED

    def take_in(self) -> None:
        self._tensor.flags |= _COMPUTED

    def content(self) -> bytes:
        """The memory of the values, of any type."""
        raw = ctypes.create_string_buffer(self.size)
        _graph_library().ggml_backend_tensor_get(self.identity, ctypes.addressof(raw), 0, len(raw))
        return raw.raw

    def fill(self, content: bytes) -> None:
        """Replace `content()`. Raises EngineFailed for another size."""
        if len(content) != self.size:
            raise EngineFailed(f"{self.name} has {self.size} bytes, and {len(content)} were kept")
        raw = ctypes.create_string_buffer(content, len(content))
        _graph_library().ggml_backend_tensor_set(self.identity, ctypes.addressof(raw), 0, len(raw))

    def source_or_none(self, number: int) -> GraphNode | None:
        address = self._tensor.src[number]
        return GraphNode(address) if address else None

    def values(self) -> NDArray[Any]:
        """The values with four axes in numpy's order, the row last. A view if the tensor is in the CPU's memory."""
        base, tensor = _graph_library(), self._tensor
        raw = ctypes.c_uint8 * base.ggml_nbytes(self.identity)
        if tensor.data and base.ggml_backend_buffer_is_host(tensor.buffer):
            memory = raw.from_address(tensor.data)
        else:
            memory = raw()
            base.ggml_backend_tensor_get(self.identity, memory, 0, len(memory))
        return np.ndarray(tensor.ne[::-1], _NUMPY_TYPES[tensor.type], memory, strides=tensor.nb[::-1])

    @property
    def buffer(self) -> tuple[int, int]:
        """Address and size of the memory in which the tensor lies, with others."""
        base, buffer = _graph_library(), self._tensor.buffer
        return int(base.ggml_backend_buffer_get_base(buffer) or 0), int(base.ggml_backend_buffer_get_size(buffer))

    @property
    def address(self) -> int:
        """Where the data lies."""
        return int(self._tensor.data or 0)

    def place(self, address: int, stride: int) -> None:
        """Let the data lie at `address`, with a slice (the third axis) every `stride` bytes."""
        self._tensor.data = address
        self._tensor.nb[2] = stride
        self._tensor.nb[3] = stride * self._tensor.ne[2]

    def lie_at(self, address: int) -> None:
        """Let the data lie at `address`, laid out as it is."""
        self._tensor.data = address

    @property
    def lying(self) -> tuple[int, tuple[int, ...], int]:
        """The type, the bytes from one to the next on each axis in ggml order, and the address of the data."""
        return int(self._tensor.type), tuple(self._tensor.nb), self.address

    def lie_as(self, lying: tuple[int, tuple[int, ...], int]) -> None:
        """Let the data lie elsewhere and in another type, as `lying` tells it."""
        self._tensor.type, strides, self._tensor.data = lying
        self._tensor.nb[:] = strides

    def hide(self) -> None:
        """Change the name to one that no file has; `show` gives it back."""
        self._tensor.name = _HIDDEN + bytes(self._tensor.name)

    def show(self) -> None:
        self._tensor.name = bytes(self._tensor.name).removeprefix(_HIDDEN)

    def overwrite(self, values: NDArray[np.float32]) -> None:
        """Replace `values()`, so that later tensors are computed from the new ones.

        Raises EngineFailed for a tensor that is not contiguous float32 or has another shape."""
        dense = np.ascontiguousarray(values, np.float32)
        if not self.is_float32 or dense.shape[::-1] != self.shape or dense.strides[::-1] != tuple(self._tensor.nb):
            raise EngineFailed(f"{self.name} cannot be overwritten: the engine lays it out in another way")
        _graph_library().ggml_backend_tensor_set(self.identity, dense.ctypes.data, 0, dense.nbytes)

    def overwrite_rows(self, first: int, rows: NDArray[np.float32]) -> None:
        """Replace rows from number `first` on, (rows, row length), of a weight in float32 or float16.

        Raises EngineFailed for another type, another row length and rows that are not there."""
        kind, (length, *others) = _NUMPY_TYPES.get(self._tensor.type), self.shape
        if kind is None or kind.kind != "f" or self._tensor.nb[1] != length * kind.itemsize:
            raise EngineFailed(f"{self.name} cannot be overwritten: the engine lays it out in another way")
        if rows.shape[1] != length or not 0 <= first <= first + len(rows) <= math.prod(others):
            raise EngineFailed(f"{self.name} has no rows {first} to {first + len(rows)} of {rows.shape[1]} weights")
        dense = np.ascontiguousarray(rows, kind)
        offset = first * length * kind.itemsize
        _graph_library().ggml_backend_tensor_set(self.identity, dense.ctypes.data, offset, dense.nbytes)


class Observer(Scorer):
    """A Scorer that shows the tensors of the graph while they are computed, as ggml's evaluation callback does.

    `wants(node)` is called before each node is computed. `sees(node)` is called with each wanted node after that. If it
    returns False, the rest of the pass is not computed.
    """

    def __init__(
        self,
        path: Path,
        wants: Callable[[GraphNode], bool],
        sees: Callable[[GraphNode], bool],
        *,
        window: int,
        sequences: int = 1,
        run: Run | None = None,
    ) -> None:
        """`sequences` is the largest number of texts in one pass. Raises as Scorer does."""
        _graph_library()
        self._sequences = sequences
        self._failure: BaseException | None = None

        def visit(address: int, asking: bool, _: object) -> bool:
            # An exception here would be printed and lost, so it is stored and the pass ends.
            try:
                return self._failure is None and (wants if asking else sees)(GraphNode(address))
            except BaseException as error:
                self._failure = error
                return False

        self._visit = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)(visit)
        super().__init__(path, window=window, run=run)

    def _context_params(self) -> Any:
        params = super()._context_params()
        params.n_seq_max = self._sequences
        params.cb_eval = ctypes.cast(self._visit, type(params.cb_eval))
        return params

    def observe(self, tokens: Sequence[int]) -> Iterator[int]:
        """Runs a text with an empty cache through all layers. Yields the number of tokens after each pass.

        A node's identity is unique within one pass. Errors of `wants` and `sees` are raised.
        """
        self.trim(0, 0)
        for start in range(0, len(tokens), self.batch_size):
            piece = list(tokens[start : start + self.batch_size])
            count = len(piece)
            # The last layer drops the rows of tokens without requested logits, so all are requested.
            self.decode(Batch(piece, [*range(start, start + count)], [0] * count, [*range(count)]))
            yield count

    def observe_together(self, texts: Sequence[Sequence[int]]) -> Iterator[int]:
        """As `observe` for several texts, each with an empty cache. Texts that fit share one pass as separate
        sequences."""
        for together in packed(texts, self.batch_size, self._sequences):
            if len(together) == 1:
                yield from self.observe(together[0])
                continue
            batch = Batch()
            for slot, tokens in enumerate(together):
                self.trim(slot, 0)
                batch.add([*tokens], 0, slot, output=False)
            batch.outputs = [*range(len(batch.tokens))]
            self.decode(batch)
            for slot in range(len(together)):
                self.trim(slot, 0)
            yield len(batch.tokens)

    def forget_weights(self) -> None:
        """Weights that were used may leave the memory. Only those of a `MappedObserver` do."""

    def decode(self, batch: Batch) -> None:
        super().decode(batch)
        if self._failure is not None:
            raise self._failure


def packed(texts: Sequence[Sequence[int]], most: int, count: int) -> Iterator[list[Sequence[int]]]:
    """Groups consecutive texts: at most `count` texts and `most` tokens. A longer text is alone."""
    group: list[Sequence[int]] = []
    for text in texts:
        if group and (len(group) == count or sum(map(len, group)) + len(text) > most):
            yield group
            group = []
        group.append(text)
    if group:
        yield group
