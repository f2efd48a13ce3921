"""Measures how fast ggml computes on this CPU, with the kernels, weight layouts and threads of a model.

Small graphs run on ggml's CPU backend with matrices of the model's size: those larger than the caches must come from
memory, as in a large model; small ones stay in the caches.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np

from runtime.base.errors import EngineFailed, UsageError
from runtime.gguf import types
from runtime.gguf.kv_types import kv_types
from runtime.llama.native import library

_SECONDS = 0.05  # of one measurement with one thread
_TOGETHER = 3  # times as long with more: how they wait for each other varies, and all of it counts
_STALLED = 1.5  # times the median that the mean may be; above, other work had one of the cores
_LEAST = 4  # computations, however long they take
_SLICES = 32  # matrices that are multiplied in turn, as those of a model are
_NODES = 128  # of a graph, at most
_SMALL = 1 << 21  # bytes of a matrix for a first look
_LONG = 0.008  # seconds that one column of all matrices may take
_PATTERN_ROWS = 16  # random rows that a matrix repeats; kernels that look values up must not find the same one always
_POOL = 1 << 20  # bytes for the descriptions of a graph's tensors
_OPERATIONS = 64
_CELLS = 1024  # tokens in the cache
_EXPERTS = 2  # engines reorder stacks of several matrices only
_EXPERTS_SIZE = 1 << 19  # bytes of one: it stays in the cache of a core
_CHOSEN = 32  # tokens that choose an expert
_CPU = 0  # enum ggml_backend_dev_type
_OWN_CLOCK_IS_FINE = time.get_clock_info("thread_time").resolution < 1e-6
_F32, _F16, _I32 = (types.BY_NAME[name].number for name in ("F32", "F16", "I32"))


class _InitParams(ctypes.Structure):
    """struct ggml_init_params (ggml.h)."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class _Ggml:
    """The functions of ggml with their prototypes (ggml.h, ggml-backend.h, ggml-cpu.h of the engine's version)."""

    def __init__(self) -> None:
        base, cpu, registry = library("ggml-base"), library("ggml-cpu"), library("ggml")
        pointer, integer, real, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_size_t
        long = ctypes.c_int64
        self.init = _function(base, "ggml_init", pointer, _InitParams)
        self.free = _function(base, "ggml_free", None, pointer)
        self.tensor = _function(base, "ggml_new_tensor_4d", pointer, pointer, integer, long, long, long, long)
        self.mul_mat = _function(base, "ggml_mul_mat", pointer, *[pointer] * 3)
        self.mul_mat_id = _function(base, "ggml_mul_mat_id", pointer, *[pointer] * 4)
        self.rms_norm = _function(base, "ggml_rms_norm", pointer, pointer, pointer, real)
        self.mul = _function(base, "ggml_mul", pointer, *[pointer] * 3)
        self.silu = _function(base, "ggml_silu", pointer, *[pointer] * 2)
        self.add = _function(base, "ggml_add", pointer, *[pointer] * 3)
        self.attention = _function(base, "ggml_flash_attn_ext", pointer, *[pointer] * 5, *[real] * 3)
        self.graph = _function(base, "ggml_new_graph_custom", pointer, pointer, size, ctypes.c_bool)
        self.expand = _function(base, "ggml_build_forward_expand", None, pointer, pointer)
        self.compute = _function(base, "ggml_backend_graph_compute", integer, pointer, pointer)
        self.allocate = _function(base, "ggml_backend_alloc_ctx_tensors_from_buft", *[pointer] * 3)
        self.set = _function(base, "ggml_backend_tensor_set", None, pointer, pointer, size, size)
        self.clear = _function(base, "ggml_backend_buffer_clear", None, pointer, ctypes.c_uint8)
        self.buffer_free = _function(base, "ggml_backend_buffer_free", None, pointer)
        self.plain = _function(base, "ggml_backend_cpu_buffer_type", pointer)()
        self.supports = _function(base, "ggml_backend_dev_supports_op", ctypes.c_bool, pointer, pointer)
        self.backend = _function(cpu, "ggml_backend_cpu_init", pointer)
        self.backend_free = _function(base, "ggml_backend_free", None, pointer)
        self.set_threads = _function(cpu, "ggml_backend_cpu_set_n_threads", None, pointer, integer)
        registry.ggml_backend_load_all()
        self.device = _function(registry, "ggml_backend_dev_by_type", pointer, integer)(_CPU)
        self.special = self._special_layouts(base)

    def _special_layouts(self, base: ctypes.CDLL) -> list[int]:
        """Buffer types that rearrange weights for faster kernels, in the order in which llama.cpp tries them."""
        pointer = ctypes.c_void_p
        registry = _function(base, "ggml_backend_dev_backend_reg", pointer, pointer)(self.device)
        find = _function(base, "ggml_backend_reg_get_proc_address", pointer, pointer, ctypes.c_char_p)
        address = find(registry, b"ggml_backend_dev_get_extra_bufts")
        if not address:
            return []
        listed = ctypes.CFUNCTYPE(ctypes.POINTER(pointer), pointer)(address)(self.device)
        found: list[int] = []
        while listed and listed[len(found)]:
            found.append(listed[len(found)])
        return found


def _function(lib: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


class SpeedTest:
    """Measures with `threads` threads, as a context manager. Raises EngineFailed if there is no memory for it.

    `reorders`: weights have the order of the fastest kernels, as llama.cpp copies them into memory; otherwise that of
    the file, as it reads them from a mapping.
    """

    def __init__(self, threads: int, seconds: float = _SECONDS, *, reorders: bool = True) -> None:
        if threads < 1:
            raise UsageError(f"at least one thread is needed, not {threads}")
        self._seconds = seconds
        self._ggml = _Ggml()
        self._layouts = (*(self._ggml.special if reorders else ()), self._ggml.plain)
        self._backend = self._ggml.backend()
        self.set_threads(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ggml.backend_free(self._backend)

    def set_threads(self, threads: int) -> None:
        self._ggml.set_threads(self._backend, threads)
        self._threads = threads
        # A single thread is this one: its own clock does not count time that other work has the core.
        self._now = time.thread_time if threads == 1 and _OWN_CLOCK_IS_FINE else time.perf_counter

    def matrix(self, type_name: str, width: int, size: int, columns: Sequence[int]) -> list[float]:
        """Bytes of weights per second for each number of `columns`, with matrices of `size` bytes and rows of `width`.

        For slow types they are smaller: arithmetic is then the limit, not memory.
        """
        kind = types.BY_NAME[type_name]
        width = max(1, width // kind.block) * kind.block
        pattern = _weights(kind, width)
        small = max(1, min(size, _SMALL) // len(pattern))
        first = self._matrices(kind, width, pattern * small, 1, (1,), glance=True)[0]
        long = max(int(first * _LONG), _SMALL)
        repeats = max(1, min(size, long) // _SLICES // len(pattern))
        return self._matrices(kind, width, pattern * repeats, _SLICES, columns)

    def experts(self, type_name: str, width: int) -> list[float]:
        """Bytes of weights per second where an expert in the cache is multiplied with one more token that chose it."""
        ggml, kind = self._ggml, types.BY_NAME[type_name]
        width = max(1, width // kind.block) * kind.block
        pattern = _weights(kind, width)
        expert = pattern * max(1, _EXPERTS_SIZE // len(pattern))
        tokens = _EXPERTS * _CHOSEN
        with self._weights(kind, width, expert * _EXPERTS, 1, _EXPERTS) as [stack], self._described() as context:
            activations = ggml.tensor(context, _F32, width, 1, tokens, 1)
            chosen = ggml.tensor(context, _I32, 1, tokens, 1, 1)
            node = ggml.mul_mat_id(context, stack, activations, chosen)
            numbers = (np.arange(tokens, dtype=np.int32) % _EXPERTS).tobytes()
            return [len(expert) * tokens / self._typical(context, [node], inputs=((chosen, numbers),))]

    def attention(self, kv_type: str, key: int, value: int, heads: int) -> list[float]:
        """Multiply-adds per second of one token's attention; `key` and `value` are the lengths of a head."""
        ggml, kind = self._ggml, kv_types(kv_type).keys
        key, value = (-(-each // kind.block) * kind.block for each in (key, value))
        with self._described() as context:
            query = ggml.tensor(context, _F32, key, 1, heads, 1)
            keys = ggml.tensor(context, kind.number, key, _CELLS, 1, 1)
            values = ggml.tensor(context, kind.number, value, _CELLS, 1, 1)
            mask = ggml.tensor(context, _F16, _CELLS, 1, 1, 1)
            node = ggml.attention(context, query, keys, values, mask, 1.0, 0.0, 0.0)
            return [heads * (key + value) * _CELLS / self._typical(context, [node])]

    def operation(self, width: int, rows: Sequence[int]) -> list[float]:
        """Seconds of one small operation between a layer's matrices for each number of `rows` with `width` values."""
        return [self._operation_seconds(width, count) for count in rows]

    def _operation_seconds(self, width: int, rows: int) -> float:
        ggml = self._ggml
        with self._described() as context:
            first = node = ggml.tensor(context, _F32, width, rows, 1, 1)
            weights = ggml.tensor(context, _F32, width, 1, 1, 1)
            for _ in range(_OPERATIONS // 4):
                norm = ggml.mul(context, ggml.rms_norm(context, node, 1e-5), weights)
                node = ggml.add(context, ggml.silu(context, norm), first)
            return self._typical(context, [node]) / _OPERATIONS

    def _matrices(
        self,
        kind: types.GgmlType,
        width: int,
        data: bytes,
        count: int,
        columns: Sequence[int],
        *,
        glance: bool = False,
    ) -> list[float]:
        """Bytes per second of `count` matrices filled with `data`, used in turn, for each number of columns."""
        with self._weights(kind, width, data, count) as matrices:
            return [len(data) / self._matrix_seconds(matrices, width, each, glance) for each in columns]

    def _matrix_seconds(self, matrices: Sequence[int], width: int, columns: int, glance: bool) -> float:
        ggml = self._ggml
        with self._described() as context:
            activations = ggml.tensor(context, _F32, width, columns, 1, 1)
            return self._typical(context, [ggml.mul_mat(context, each, activations) for each in matrices], glance)

    def _typical(
        self, context: int, nodes: Sequence[int], glance: bool = False, inputs: Sequence[tuple[int, bytes]] = ()
    ) -> float:
        """Seconds of one of the graphs that end in `nodes`, computed in turn; activations besides `inputs` are zero.

        A `glance` is short and gives the peak speed, not the sustained one."""
        ggml, graphs = self._ggml, []
        for node in nodes:
            graphs.append(ggml.graph(context, _NODES, False))
            ggml.expand(graphs[-1], node)
        with self._allocated(context, ggml.plain) as buffer:
            ggml.clear(buffer, 0)
            for tensor, data in inputs:
                ggml.set(tensor, data, 0, len(data))
            self._computed(graphs, 0.0)  # wakes the threads up
            if glance or self._threads == 1:
                return usual(self._computed(graphs, self._seconds))
            found = self._computed(graphs, self._seconds * _TOGETHER)
            if has_stalled(found):
                found = min(found, self._computed(graphs, self._seconds * _TOGETHER), key=sustained)
            return sustained(found)

    def _computed(self, graphs: Sequence[int], seconds: float) -> list[float]:
        """The seconds of each computation, repeated for `seconds`."""
        found: list[float] = []
        started = time.perf_counter()
        while len(found) < _LEAST or time.perf_counter() - started < seconds:
            for graph in graphs:
                begun = self._now()
                if self._ggml.compute(self._backend, graph) != 0:
                    raise EngineFailed("the engine could not compute a small graph to measure its speed")
                found.append(max(self._now() - begun, 1e-9))
        return found

    @contextmanager
    def _weights(
        self, kind: types.GgmlType, width: int, data: bytes, count: int, experts: int = 1
    ) -> Iterator[list[int]]:
        """Filled matrices, or stacks of `experts`, in the first layout with kernels for them."""
        ggml = self._ggml
        rows = len(data) // experts // (width // kind.block * kind.width)
        for layout in self._layouts:
            with ExitStack() as stack:
                context = stack.enter_context(self._described())
                matrices = [ggml.tensor(context, kind.number, width, rows, experts, 1) for _ in range(count)]
                stack.enter_context(self._allocated(context, layout))
                if layout == ggml.plain or self._multiplies(matrices[0], width, experts):
                    for matrix in matrices:
                        ggml.set(matrix, data, 0, len(data))
                    yield matrices
                    return

    def _multiplies(self, matrix: int, width: int, experts: int) -> bool:
        ggml = self._ggml
        with self._described() as context:
            activations = ggml.tensor(context, _F32, width, 1, 1, 1)
            if experts == 1:
                node = ggml.mul_mat(context, matrix, activations)
            else:
                node = ggml.mul_mat_id(context, matrix, activations, ggml.tensor(context, _I32, 1, 1, 1, 1))
            return bool(ggml.supports(ggml.device, node))

    @contextmanager
    def _described(self) -> Iterator[int]:
        """A ggml context for tensors without data."""
        context = self._ggml.init(_InitParams(_POOL, None, True))
        if not context:
            raise EngineFailed("not enough memory to measure the speed of this machine")
        try:
            yield context
        finally:
            self._ggml.free(context)

    @contextmanager
    def _allocated(self, context: int, layout: int) -> Iterator[int]:
        """Memory for the tensors described in `context`."""
        buffer = self._ggml.allocate(context, layout)
        if not buffer:
            raise EngineFailed("not enough memory to measure the speed of this machine")
        try:
            yield buffer
        finally:
            self._ggml.buffer_free(buffer)


def usual(seconds: Sequence[float]) -> float:
    """The typical seconds of one thread by its own clock: the lower quartile, because few runs are interrupted."""
    return sorted(seconds)[len(seconds) // 4]


def sustained(seconds: Sequence[float]) -> float:
    """The sustained seconds of several threads: the mean, because a model also waits when threads wait."""
    return statistics.fmean(seconds)


def has_stalled(seconds: Sequence[float]) -> bool:
    return sustained(seconds) > _STALLED * statistics.median(seconds)


def _weights(kind: types.GgmlType, width: int) -> bytes:
    """Rows of weights like those of a model: random numbers, or random blocks of a quantized type.

    Scales that are NaN or denormal would cost a tenth of the speed, so their exponents are set. Scales are half
    precision numbers at even offsets in all types, with the exponent in the second byte.
    """
    random = np.random.default_rng(0)
    if kind.block > 1:
        data = random.integers(0, 256, _PATTERN_ROWS * width // kind.block * kind.width, np.uint8)
        data[1::2] = data[1::2] & 0xBF | 0x10
        return data.tobytes()
    numbers = random.standard_normal(_PATTERN_ROWS * width, np.float32)
    if kind.name == "F16":
        return numbers.astype(np.float16).tobytes()
    return (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes() if kind.name == "BF16" else numbers.tobytes()
