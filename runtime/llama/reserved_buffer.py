"""Gives chosen tensors a place in reserved memory, which the engine computes from but never fills.

The engine asks a buffer type of our own for the memory of these tensors. Their names are hidden while the model loads,
so that the engine reads none of their data: load_all_data in src/llama-model-loader.cpp skips tensors that the file
does not name. Memory is reserved, not taken: a page takes memory when it is filled.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from runtime.base.errors import EngineFailed
from runtime.base.types import ByteCount
from runtime.from_disk.reader import PAGE
from runtime.from_disk.units import Stack, Units
from runtime.from_disk.weights import MAPPED_INSTEAD
from runtime.llama.devices import Override
from runtime.llama.graph import GraphNode, check_layout
from runtime.llama.load_model import MORE_MEMORY
from runtime.llama.native import library

_NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux, which this version of Python does not name
_NAME = ctypes.create_string_buffer(b"reserved by dsr")
_ALIGNMENT = 64  # TENSOR_ALIGNMENT (ggml-impl.h)

_MOVE = 1 | 2 | 4  # MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP of Linux: the old place stays reserved
# PyDLL keeps the interpreter lock: a move takes ten microseconds, and taking the lock again may take longer.
_remap = getattr(ctypes.PyDLL(None), "mremap", None) if sys.platform == "linux" else None
if _remap is not None:
    _remap.restype = ctypes.c_void_p
    _remap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]

_MAPPINGS = 65530  # of a process, unless vm.max_map_count says otherwise (mm/util.c of Linux)

_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_NEVER_MORE_THAN_MEMORY = (
    "this system promises no more memory than it has (vm.overcommit_memory is 2): allow it with "
    f"sysctl vm.overcommit_memory=0; or {MAPPED_INSTEAD}"
)

_name_of = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_number_of = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
_size_of = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)
_is_host = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)


class _BufferType(ctypes.Structure):
    """struct ggml_backend_buffer_type (ggml-backend-impl.h)."""

    _fields_ = (
        ("get_name", _name_of),
        ("alloc_buffer", _allocate),
        ("get_alignment", _number_of),
        ("get_max_size", ctypes.c_void_p),
        ("get_alloc_size", _size_of),
        ("is_host", _is_host),
        ("device", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


class ReservedBuffer:
    """Reserved memory for the stacks of `units`. Keep it until the model is freed."""

    def __init__(self, units: Units) -> None:
        check_layout()
        self._stacks = {stack.name: stack for stack in units.stacks}
        self.tensors: dict[str, GraphNode] = {}
        self._sizes: dict[int, int] = {}  # by the address of the tensor
        self.failure: str | None = None  # why there is no memory
        self.remedy = ""  # what helps
        self._region: mmap.mmap | None = None
        self._moved: set[int] = set()  # places in the region
        self._most_moved = _most_moved()
        self._type = _BufferType(
            get_name=_name_of(lambda _: ctypes.addressof(_NAME)),
            alloc_buffer=_allocate(lambda _, size: self._reserve(size)),
            get_alignment=_number_of(lambda _: _ALIGNMENT),
            get_alloc_size=_size_of(lambda _, tensor: self._meet(tensor)),
            is_host=_is_host(lambda _: True),
        )
        parts = sorted({re.escape(stack.name.split(".", 2)[2]) for stack in units.stacks})
        layers = "|".join(map(str, units.layers))
        pattern = rf"^blk\.({layers})\.({'|'.join(parts)})$"
        self.overrides = (Override * 2)(Override(pattern.encode(), ctypes.addressof(self._type)))

    def settle(self, stacks: Sequence[Stack]) -> list[int]:
        """After loading: give the tensors their names, and each slice whole pages of its own.

        Returns where the first slice of each stack lies in `region`. Raises EngineFailed if a tensor is missing."""
        if self._region is None or self.tensors.keys() != self._stacks.keys():
            failure = self.failure or "the engine did not ask for the memory of the weights on the disk"
            raise EngineFailed(failure, hint=self.remedy or MAPPED_INSTEAD)
        base, places, taken = self.address, [], 0
        for stack in stacks:
            place = taken + stack.offset % PAGE
            taken += _size(stack)
            tensor = self.tensors[stack.name]
            tensor.place(base + place, stack.size + PAGE)
            tensor.show()
            places.append(place)
        return places

    @property
    def region(self) -> mmap.mmap:
        assert self._region is not None
        return self._region

    @cached_property
    def address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.region))

    def move(self, source: int, target: int, length: int) -> bool:
        """Move memory that is taken from one place of `region` to another. False where the system cannot, or where so
        many places had moves that the process would run out of mappings."""
        new = {source, target} - self._moved
        if _remap is None or len(self._moved) + len(new) > self._most_moved:
            return False
        self._moved |= new
        moved = _remap(self.address + source, length, length, _MOVE, ctypes.c_void_p(self.address + target))
        return bool(moved == self.address + target)

    def _meet(self, address: int) -> int:
        """The memory that a tensor needs. The engine asks before it loads anything, so the name is hidden here."""
        tensor = GraphNode(address)
        if (stack := self._stacks.get(tensor.name)) is not None:
            self.tensors[stack.name] = tensor
            self._sizes[address] = _size(stack)
            tensor.hide()
        return self._sizes[address]

    def _reserve(self, size: int) -> Any:
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
            self._region = mmap.mmap(-1, size, flags=flags)
        except (OSError, ValueError, MemoryError) as error:
            self.failure = f"the system does not reserve {ByteCount(size)} of address space for the weights: {error}"
            self.remedy = _NEVER_MORE_THAN_MEMORY if _reserving_takes_memory() else MORE_MEMORY
            return None
        base = library("ggml-base")
        base.ggml_backend_cpu_buffer_from_ptr.restype = ctypes.c_void_p
        base.ggml_backend_cpu_buffer_from_ptr.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        return base.ggml_backend_cpu_buffer_from_ptr(self.address, size)


def _reserving_takes_memory() -> bool:
    """Whether Linux counts reserved memory as if it were taken (mode 2, Documentation/mm/overcommit-accounting.rst)."""
    try:
        return _OVERCOMMIT.read_text(encoding="ascii").strip() == "2"
    except (OSError, ValueError):
        return False


def _most_moved() -> int:
    """The most places of moves. Each one splits the region twice; half of the mappings stay for everything else."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii")) // 4
    except (OSError, ValueError):
        return _MAPPINGS // 4


def _size(stack: Stack) -> int:
    """The memory of a stack: for each slice whole pages, and a page to begin within. A multiple of PAGE."""
    return -(-stack.count * (stack.size + PAGE) // PAGE) * PAGE + 2 * PAGE
