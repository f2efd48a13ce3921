"""Measures this computer: the CPU through the engine's own kernels, the disk, and which GPUs there are.

Each figure takes a fraction of a second. Only what a model needs is measured: its weight types, with its row lengths
and as much memory as it has. The caller keeps the figures and passes them in again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from runtime.base.events import Listener, Progress, ignore
from runtime.gguf import types
from runtime.gguf.card import ModelCard
from runtime.machine import gpus, threads
from runtime.machine.disk import read_speed
from runtime.machine.host import Host, largest_cache, numa_nodes, strong_cores
from runtime.machine.machine import FEW, MANY, Device, Machine, Speed, usable

if TYPE_CHECKING:
    from runtime.llama import EngineInfo
    from runtime.llama.kernel_speed import SpeedTest

# Measurements by name: "Q4_K x4096 of 64 MiB" -> bytes per second with one, two and eight columns.
Figures = MutableMapping[str, list[float]]

# For an unknown model: the types of most files, with the row length of a model with 8 billion parameters.
COMMON_TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q4_0", "Q4_1", "IQ4_XS", "IQ3_XXS",
    "IQ2_XXS", "MXFP4",
)  # fmt: skip
_COMMON_WIDTH = 4096
# A header may claim any numbers, and dsr also measures for files that it never opens. No known model has larger ones.
_WIDEST = 1 << 16
_MOST_IN_ATTENTION = 1024
_KERNEL_BLOCK = 64
_COMMON_HEADS = (128, 128, 32)
_KV_TYPES = ("F16", "Q8_0", "Q4_0")

_SIZE = 64 << 20  # bytes of a measured matrix, at least
_LARGEST = 512 << 20
_LEAST_ATTENTION = 0.02  # multiply-adds in the time of reading a byte from memory; 0.1 to 0.4 are usual
_MOST = 1e30  # no figure of a machine is larger, nor is its reciprocal
_CONTRADICTION = 10.0  # speeds of two kernels in bytes per second never differed so much on one machine
_WORTH_IT = 1.05  # more threads must be this much faster, as in `runtime.machine.threads`

# The small operations of a layer, of a layer with routed experts for each token, and of each token. Fitted to the time
# of steps with one and eight tokens without matrices and attention, for a dense model with 30 layers and a mixture of
# experts with 4.
_PER_LAYER, _PER_EXPERT_LAYER, _PER_ROW = 40, 150, 45

# Seconds to sample a token, and for each vocabulary entry; measured on a server core of 2023.
_PER_DRAW, _PER_ENTRY = 50e-6, 4e-9


@dataclass(frozen=True, slots=True)
class _Shape:
    """What to measure for a model: the row length of each type, the bytes of a matrix, the shape of its attention.

    `in_memory`: whether it fits. The engine copies such a model into the order that its fastest kernels want.
    `experts`: the types that routed experts have.
    """

    widths: dict[str, int]
    size: int
    heads: tuple[int, int, int]
    embedding: int
    in_memory: bool = True
    experts: tuple[str, ...] = ()


def fingerprint(host: Host, engine: str, busy: int) -> str:
    """The conditions under which figures stay valid: CPU, version of the engine, and busy cores."""
    features = " ".join(host.features)
    return f"{host.cpu}, {host.cores} cores, {host.threads} threads, {busy} busy, {features}, engine {engine}"


def measure_machine(
    host: Host,
    engine: EngineInfo | None,
    card: ModelCard | None = None,
    *,
    file: Path | None = None,
    busy: int = 0,
    threads: int | None = None,
    figures: Figures | None = None,
    listen: Listener = ignore,
) -> Machine:
    """Measure this computer for a model, or for any model if `card` is None, with `threads` or the fastest number.

    `figures` holds earlier measurements and receives new ones. `file` is read to measure the disk; without a file its
    speed is unknown. `engine` is None if it cannot be loaded: then no GPUs are known. Raises EngineFailed if there is
    no memory for measuring.
    """
    from runtime.llama.kernel_speed import SpeedTest

    shape = _shape(card, host.memory_available)
    # Five besides types and attention: time stamp, threads, memory, small operations, disk.
    asked = len(shape.widths) + len(shape.experts) + len(_KV_TYPES) + 5
    kept = _MeasuredFigures({} if figures is None else figures, asked, listen)
    begun = int(kept.get("measured from", lambda: [time.time()])[0])
    with SpeedTest(1, reorders=shape.in_memory) as test:
        count = threads or _threads(test, shape, host.cores - busy, kept)
        test.set_threads(count)
        speed = _speed(test, shape, count, kept)
    where = file or (card.path if card else None)
    disk = kept.get(f"disk {_filesystem(where)}", lambda: [read_speed(where)])[0] if where else 0.0
    kept.end()
    gpu_devices, links, shared = gpus.gpu_devices(engine.devices if engine else (), speed, host.memory_available)
    free = host.memory_available - shared
    return Machine(
        name=host.cpu,
        devices=(Device("CPU", "cpu", free, host.memory_total, speed, description=host.cpu), *gpu_devices),
        links=links,
        disk_read=disk,
        numa_nodes=numa_nodes(Path("/")),
        per_draw=_PER_DRAW,
        per_entry=_PER_ENTRY,
        probe=_name(fingerprint(host, engine.version if engine else "", busy), begun),
    )


class _MeasuredFigures:
    """Figures that are measured at their first use. If anything is measured, the listener gets progress."""

    def __init__(self, figures: Figures, asked: int, listen: Listener) -> None:
        self._figures, self._asked, self._listen = figures, asked, listen
        self._done, self._measured = 0, False

    def get(self, key: str, measure: Callable[[], list[float]], count: int = 1) -> list[float]:
        """`count` figures. Stored values that are not valid figures are measured again."""
        found = self._figures.get(key)
        if not _are_figures(found, count):
            self._measured = True
            self._tell(self._done)
            found = self._figures[key] = measure()
        self._done += 1
        return found

    def end(self) -> None:
        if self._measured:
            self._tell(self._asked)

    def _tell(self, done: int) -> None:
        self._listen(Progress("measuring", "this machine", min(done, self._asked), self._asked, "steps"))


def _are_figures(found: object, count: int) -> TypeGuard[list[float]]:
    return (
        isinstance(found, list)
        and len(found) == count
        and all(isinstance(each, int | float) and 1 / _MOST < each < _MOST for each in found)
    )


def _shape(card: ModelCard | None, available: int) -> _Shape:
    roomy = max(1 << 20, min(max(_SIZE, 3 * largest_cache(Path("/"))), _LARGEST, available // 8))
    if card is None:
        widths = dict.fromkeys(COMMON_TYPES, _COMMON_WIDTH)
        return _Shape(widths, roomy, _COMMON_HEADS, _COMMON_WIDTH, experts=COMMON_TYPES)
    sizes: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for tensor in card.tensors:
        if len(tensor.shape) > 1:
            sizes[tensor.type] += tensor.parameters
            rows[tensor.type] += tensor.parameters // tensor.shape[0]
    return _Shape(
        widths={name: _rounded(sizes[name] // rows[name], name) for name in sizes},
        size=min(roomy, max(card.weights_size, 1 << 20)),
        heads=(_head(card.key_length), _head(card.value_length), _head(card.heads)),
        embedding=min(card.embedding_length, _WIDEST),
        in_memory=card.weights_size <= usable(available),
        experts=tuple(sorted({each.type for each in card.tensors if each.is_expert_stack and len(each.shape) > 2})),
    )


def _head(count: int) -> int:
    return min(max(count, 1), _MOST_IN_ATTENTION)


def _rounded(width: int, type_name: str) -> int:
    """A row length that suits all kernels of the type: some are slow without blocks of 64 values."""
    block = max(_KERNEL_BLOCK, types.BY_NAME[type_name].block)
    return max(1, min(width, _WIDEST) // block) * block


def _threads(test: SpeedTest, shape: _Shape, free: int, kept: _MeasuredFigures) -> int:
    """The fastest thread count on `free` cores. On CPUs with two kinds of cores the strong ones alone are tried too."""
    counts = threads.candidates(max(1, free))
    strong = strong_cores(Path("/"))
    if strong is not None and strong < free:
        counts = tuple(sorted({*counts, strong}))
    if len(counts) == 1:
        return counts[0]

    def measure() -> list[float]:
        best = dict.fromkeys(counts, 0.0)
        for _ in range(2):  # in turns, so that a burst of other work affects all counts alike
            for count in counts:
                test.set_threads(count)
                best[count] = max(best[count], *test.matrix("Q8_0", shape.embedding, shape.size // 2, (1,)))
        return [fewest_of_the_fastest(best)]

    found = int(kept.get(f"threads of {counts} for {_mib(shape.size)}", measure)[0])
    return found if found in counts else counts[0]


def fewest_of_the_fastest(speeds: Mapping[int, float]) -> int:
    """The thread count to use: a larger one must be clearly faster, because other programs need the cores."""
    counts = sorted(speeds)
    winner = counts[0]
    for count in counts[1:]:
        if speeds[count] > speeds[winner] * _WORTH_IT:
            winner = count
    return winner


def _speed(test: SpeedTest, shape: _Shape, count: int, kept: _MeasuredFigures) -> Speed:
    def get(what: str, measure: Callable[[], list[float]], figures: int = 1) -> list[float]:
        return kept.get(f"{what}, {count} threads", measure, figures)

    order = "" if shape.in_memory else ", in the file's order"
    speeds: dict[str, list[float]] = {}
    for again in ("", ", again"):
        doubtful = [*shape.widths] if not again else contradicting({name: each[0] for name, each in speeds.items()})
        for name in doubtful:
            columns = partial(test.matrix, name, shape.widths[name], shape.size, (1, FEW, MANY))
            matrix = partial(better_of_two, columns, are_plausible)
            speeds[name] = get(f"{name} x{shape.widths[name]} of {_mib(shape.size)}{order}{again}", matrix, 3)
    further = {}
    for name in shape.experts:
        experts = partial(test.experts, name, shape.widths[name])
        further[name] = get(f"experts {name} x{shape.widths[name]}{order}", experts)[0]
    matrix = partial(test.matrix, "F16", _COMMON_WIDTH, shape.size, (1,))
    memory = get(f"memory {_mib(shape.size)}", matrix)
    attention = {}
    for kv_type in _KV_TYPES:
        attend = partial(test.attention, kv_type.lower(), *shape.heads)
        multiply = partial(better_of_two, attend, lambda found: found[0] >= memory[0] * _LEAST_ATTENTION)
        attention[kv_type] = get(f"attention {shape.heads} {kv_type}", multiply)[0]
    operation = partial(test.operation, shape.embedding, (1, MANY))
    one, many = get(f"operation x{shape.embedding}", operation, 2)
    per_row = max(0.0, many - one) / (MANY - 1)
    each = max(0.0, one - per_row)
    return Speed(
        bandwidth=max(memory[0], *(figures[0] for figures in speeds.values())),
        one={name: figures[0] for name, figures in speeds.items()},
        two={name: figures[1] for name, figures in speeds.items()},
        many={name: figures[2] for name, figures in speeds.items()},
        attention=attention,
        per_layer=_PER_LAYER * each,
        per_expert_layer=_PER_EXPERT_LAYER * each,
        per_row=_PER_ROW * per_row,
        threads=count,
        further=further,
    )


def better_of_two(measure: Callable[[], list[float]], plausible: Callable[[list[float]], bool]) -> list[float]:
    """A measurement. If it is not plausible, other work disturbed it: then the better of two for each figure."""
    found = measure()
    return found if plausible(found) else list(map(max, found, measure()))


def contradicting(speeds: Mapping[str, float]) -> list[str]:
    """The names whose speed is ten times as large as each of the others, or a tenth of each: they were disturbed."""
    found = []
    for name, speed in speeds.items():
        others = [each for other, each in speeds.items() if other != name]
        if len(others) > 1 and (speed > _CONTRADICTION * max(others) or speed < min(others) / _CONTRADICTION):
            found.append(name)
    return found


def are_plausible(speeds: list[float]) -> bool:
    """Whether speeds with one, two and eight columns are possible: several columns take at least as long as one, and at
    most as long as one by one. A tolerance of 1.5 allows for noise."""
    one, *others = speeds
    return all(one / (1.5 * columns) <= each <= 1.5 * one for columns, each in zip((FEW, MANY), others, strict=True))


def _name(circumstances: str, begun: int) -> str:
    """A short name that is unique for each measurement."""
    return hashlib.sha256(f"{circumstances} {begun}".encode()).hexdigest()[:16]


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def _filesystem(file: Path) -> int:
    """The number of the file system that holds `file`."""
    try:
        return os.stat(file).st_dev
    except OSError:
        return 0
