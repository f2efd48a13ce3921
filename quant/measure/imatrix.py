"""The importance matrix: the mean squared activation of each input column of each weight on a text.

The file format is llama.cpp's (tools/imatrix/imatrix.cpp): a GGUF with `general.type` "imatrix" and two F32 tensors for
each weight. `<name>.in_sum2` has the sums of squared activations, `<name>.counts` the number of rows, one for each
expert. Readers ignore other tensors, so dsr adds the router statistics that pruning needs:
`blk.<layer>.router.<statistic>` and the key `dsr.router.tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.gguf import writer
from quant.gguf.writer import KeyValue, layout
from quant.measure.old_imatrix import read_old
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from runtime.base.files import write_atomically
from runtime.gguf.header import Header
from runtime.gguf.metadata import Metadata
from runtime.gguf.tensor_name import parse_name

_SUMS, _COUNTS = ".in_sum2", ".counts"
_ROUTER_TOKENS = "dsr.router.tokens"
_NOT_AN_IMATRIX = "make one: dsr imatrix MODEL"
_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8"), "F64": np.dtype("<f8")}

# The importance of an expert that saw no token. llama-quantize takes "one" for every column. The "mean" over the
# layer's other experts is closer to the truth.
Unseen = Literal["one", "mean"]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One weight. `sums` is (slices, row length), float32, a slice for each expert or head; `counts` the rows summed,
    int64: one for each slice, or one for all."""

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.sums.ndim != 2 or self.counts.ndim != 1 or not self.counts.size or self.sums.size % self.counts.size:
            raise ValueError(f"{self.sums.shape} sums do not go with {self.counts.shape} counts")


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """Statistics of one layer's router, per expert, summed over tokens.

    `selected`: how often the expert was among the chosen, int64. `weight`: its share in the layer's output when chosen
    (normalised and scaled as the model does), `output` that share times the length of the expert's output vector,
    `probability` what the gate gave it, chosen or not, `top_logit` its raw logit where that was the highest of all:
    float64. The sources of the last two are EASY-EP (arXiv 2504.06792, without the token's own factor) and PreMoe's
    TCESS; sums of different texts may be added.
    """

    selected: NDArray[np.int64]
    weight: NDArray[np.float64]
    probability: NDArray[np.float64]
    top_logit: NDArray[np.float64]
    output: NDArray[np.float64]

    @classmethod
    def empty(cls, experts: int) -> Routing:
        return cls(np.zeros(experts, np.int64), *(np.zeros(experts) for _ in range(4)))

    def items(self) -> tuple[tuple[str, NDArray[np.int64] | NDArray[np.float64]], ...]:
        return tuple((name, getattr(self, name)) for name in ROUTER_STATISTICS)


ROUTER_STATISTICS = ("selected", "weight", "probability", "top_logit", "output")


@dataclass(frozen=True, slots=True)
class Coverage:
    """The rows of text that the experts of one weight saw: `least` and `median` over all experts."""

    name: str
    experts: int
    unseen: tuple[int, ...]
    least: int
    median: float


@dataclass(frozen=True, slots=True, eq=False)
class Imatrix:
    """`datasets` names the texts; `chunk_count` chunks of `chunk_size` tokens were read. `routing` is per layer and
    empty for a dense model or a file that llama-imatrix wrote; `routed_tokens` is how many tokens its sums are over.
    `counts_chunks`: a file of the old format, the counts of which are chunks of a size that it does not tell."""

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = ()
    chunk_count: int = 0
    chunk_size: int = 0
    routing: Mapping[int, Routing] = field(default_factory=lambda: MappingProxyType({}))
    routed_tokens: int = 0
    counts_chunks: bool = False

    def importance(self, name: str, *, unseen: Unseen = "one") -> NDArray[np.float32] | None:
        """Mean squared activation of each column, (slices, row length), as llama-quantize computes it from the file
        (tools/quantize/quantize.cpp, load_imatrix): a float32 division. None for a weight without an entry.

        A file of llama-imatrix has the heads of a weight with one count in one row: reshape to (-1, row length).
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        counts = entry.counts.astype(np.float32)[:, None]
        sums = entry.sums.reshape(counts.size, -1)
        mean = np.divide(sums, counts, out=np.ones_like(sums), where=counts > 0)
        if unseen == "mean" and (entry.counts == 0).any() and entry.counts.any():
            mean[entry.counts == 0] = sums.sum(axis=0, dtype=np.float64) / entry.counts.sum()
        return mean.reshape(entry.sums.shape)

    def counting_tokens(self, chunk_size: int) -> Imatrix:
        """A matrix of the old format with chunks of `chunk_size` tokens, as llama-imatrix reads it to go on with it
        (IMatrixCollector::load_imatrix of tools/imatrix/imatrix.cpp)."""
        size = max(chunk_size, 1)
        entries = {
            name: Entry(entry.sums * np.float32(size), entry.counts * size) for name, entry in self.entries.items()
        }
        return replace(self, entries=entries, chunk_size=chunk_size, counts_chunks=chunk_size == 0)

    def coverage(self) -> tuple[Coverage, ...]:
        """One line for each weight that has experts, in the order of the entries."""
        return tuple(
            Coverage(
                name=name,
                experts=entry.counts.size,
                unseen=tuple(int(n) for n in np.flatnonzero(entry.counts == 0)),
                least=int(entry.counts.min()),
                median=float(np.median(entry.counts)),
            )
            for name, entry in self.entries.items()
            if entry.counts.size > 1
        )


def merge(parts: Sequence[Imatrix]) -> Imatrix:
    """The matrix of all texts together. Raises Incompatible when the parts are of different models."""
    first = parts[0]
    parts = [part.counting_tokens(first.chunk_size) if part.counts_chunks else part for part in parts]
    entries: dict[str, Entry] = {}
    routing: dict[int, Routing] = {}
    for part in parts:
        for name, entry in part.entries.items():
            entries[name] = _added(name, entries[name], entry) if name in entries else entry
        for layer, found in part.routing.items():
            before = routing.get(layer)
            if before is not None and before.selected.size != found.selected.size:
                raise Incompatible(
                    f"cannot merge: layer {layer} has {before.selected.size} and {found.selected.size} experts"
                )
            routing[layer] = found if before is None else _summed(before, found)
    tokens = sum(part.chunk_count * part.chunk_size for part in parts)
    return Imatrix(
        entries=entries,
        datasets=tuple(dict.fromkeys(name for part in parts for name in part.datasets)),
        chunk_count=tokens // first.chunk_size if first.chunk_size else sum(part.chunk_count for part in parts),
        chunk_size=first.chunk_size,
        routing=routing,
        routed_tokens=sum(part.routed_tokens for part in parts),
    )


def _added(name: str, one: Entry, other: Entry) -> Entry:
    sizes = {one.counts.size, other.counts.size}
    if one.sums.size != other.sums.size or len(sizes - {1}) > 1:
        raise Incompatible(
            f"cannot merge: {name} has {one.sums.size} sums and {one.counts.size} counts in one file, "
            f"{other.sums.size} and {other.counts.size} in another"
        )
    wider = max(one.sums, other.sums, key=len)
    # A count for all slices counts for each of them.
    return Entry(one.sums.reshape(wider.shape) + other.sums.reshape(wider.shape), one.counts + other.counts)


def _summed(one: Routing, other: Routing) -> Routing:
    sums = {name: values + getattr(other, name) for name, values in one.items()}
    return Routing(**sums)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A tensor of a file: its values in numpy's shape, F32, F64 or I64. For quant.gguf.writer.layout."""

    name: str
    values: NDArray[np.generic]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[::-1]

    @property
    def target(self) -> str:
        return next(name for name, dtype in _TYPES.items() if dtype == self.values.dtype)


def write(path: Path, imatrix: Imatrix) -> None:
    """Write the file, whole or not at all. Entries are sorted by name, as llama-imatrix does.

    Raises DoesNotFit for a full disk, DsrError for a place that cannot be written.
    """
    stored: list[Stored] = []
    for name, entry in sorted(imatrix.entries.items()):
        stored.append(Stored(name + _SUMS, entry.sums.astype("<f4", copy=False)))
        stored.append(Stored(name + _COUNTS, entry.counts.astype("<f4")[:, None]))
    stored += stored_routing(imatrix.routing)
    metadata = [
        writer.text("general.type", "imatrix"),
        writer.texts("imatrix.datasets", [name.encode("utf-8", "replace") for name in imatrix.datasets]),
        writer.u32("imatrix.chunk_count", imatrix.chunk_count),
        writer.u32("imatrix.chunk_size", imatrix.chunk_size),
    ]
    if imatrix.routing:
        metadata.append(writer.u32(_ROUTER_TOKENS, imatrix.routed_tokens))
    with disk_errors(path, "free some space, or give another place with -o FILE"):
        write_atomically(path, *pieces(metadata, stored))


def pieces(metadata: Sequence[KeyValue], stored: Sequence[Stored]) -> Iterator[bytes | memoryview]:
    """The bytes of a GGUF file that holds these values, in order. Values that have the file's layout are not copied."""
    placed = layout(metadata, stored)
    yield placed.header
    at = len(placed.header)
    for tensor, offset in zip(stored, placed.offsets, strict=True):
        yield bytes(offset - at)
        yield np.ascontiguousarray(tensor.values).data
        at = offset + tensor.values.nbytes
    yield bytes(placed.size - at)


def stored_routing(routing: Mapping[int, Routing]) -> list[Stored]:
    """The router statistics as tensors, `blk.<layer>.router.<statistic>`."""
    return [
        Stored(f"blk.{layer}.router.{name}", values)
        for layer, found in sorted(routing.items())
        for name, values in found.items()
    ]


def read(path: Path) -> Imatrix:
    """Read a file of llama-imatrix, in either of its formats, or of `write`. The content tells the format.

    Raises NotFound, BadModelFile (broken, or impossible values), Incompatible (another kind of file).
    """
    from runtime.gguf.reader import read_header

    if path.is_dir():
        raise NotFound(f"{path} is a folder, not an importance matrix", hint=_NOT_AN_IMATRIX)
    if path.is_file() and not _is_gguf(path):
        return _from_old(path)
    header = read_header(path)
    metadata = Metadata(path, header.metadata, "")
    kind = metadata.text("general.type")
    if kind != "imatrix":
        raise Incompatible(
            f"{path}: {'a model' if kind in (None, 'model') else kind}, not an importance matrix", hint=_NOT_AN_IMATRIX
        )
    datasets = metadata.array("imatrix.datasets", ("str",))
    entries: dict[str, dict[str, NDArray[np.generic]]] = {}
    tensors = read_tensors(path, header)
    for name, values in tensors.items():
        for suffix in (_SUMS, _COUNTS):
            if name.endswith(suffix):
                entries.setdefault(name.removesuffix(suffix), {})[suffix] = values
    if not entries:
        raise BadModelFile(path, "holds no entries", hint=_NOT_AN_IMATRIX)
    return Imatrix(
        entries=dict(_entries(path, entries)),
        datasets=datasets.strings() if datasets else (),
        chunk_count=metadata.integer("imatrix.chunk_count", most=2**32 - 1),
        chunk_size=metadata.integer("imatrix.chunk_size", most=2**32 - 1),
        routing=routing_in(path, tensors, _NOT_AN_IMATRIX),
        routed_tokens=metadata.integer(_ROUTER_TOKENS, most=2**63 - 1, default=0),
    )


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return True  # then the reader says why it cannot be read


def _from_old(path: Path) -> Imatrix:
    """A file of the old format. Without chunks its values are taken as they are, as llama-quantize does."""
    found = read_old(path)
    entries = {
        name: Entry(sums.reshape(1, -1), np.array([max(found.chunks[name], 1)])) for name, sums in found.sums.items()
    }
    return Imatrix(entries, found.datasets, found.chunk_count, counts_chunks=True)


def _entries(path: Path, found: Mapping[str, Mapping[str, NDArray[np.generic]]]) -> Iterator[tuple[str, Entry]]:
    for name, pair in found.items():
        if len(pair) != 2:
            raise BadModelFile(path, f"{name} has {'sums' if _SUMS in pair else 'counts'} only", hint=_NOT_AN_IMATRIX)
        sums, counts = pair[_SUMS], pair[_COUNTS].reshape(-1)
        if sums.dtype != np.float32 or counts.dtype != np.float32:
            raise BadModelFile(path, f"the sums and counts of {name} are not F32", hint=_NOT_AN_IMATRIX)
        if not (np.isfinite(sums).all() and np.isfinite(counts).all() and sums.min() >= 0 and counts.min() >= 0):
            raise BadModelFile(path, f"{name} has values that are negative or not finite", hint=_NOT_AN_IMATRIX)
        if sums.size % counts.size:
            raise BadModelFile(path, f"{name} has {sums.size} sums for {counts.size} counts", hint=_NOT_AN_IMATRIX)
        rows = sums.reshape(-1, sums.shape[-1]) if sums.ndim > 1 else sums.reshape(counts.size, -1)
        yield name, Entry(rows.astype(np.float32), np.rint(counts).astype(np.int64))


def read_tensors(path: Path, header: Header) -> dict[str, NDArray[np.generic]]:
    """The tensors of a small file that are F32, F64 or I64."""
    tensors = {}
    with path.open("rb") as file:
        for tensor in header.tensors:
            if tensor.type in _TYPES:
                file.seek(tensor.offset)
                values = np.fromfile(file, _TYPES[tensor.type], tensor.parameters)
                tensors[tensor.name] = values.reshape(tensor.shape[::-1])
    return tensors


def routing_in(path: Path, tensors: Mapping[str, NDArray[np.generic]], hint: str) -> dict[int, Routing]:
    """The router statistics among the tensors of a file, by layer. Raises BadModelFile."""
    routers: dict[int, dict[str, NDArray[np.generic]]] = {}
    for name, values in tensors.items():
        parsed = parse_name(name)
        match parsed.part.split("."):
            case ["router", statistic] if parsed.layer is not None:
                routers.setdefault(parsed.layer, {})[statistic] = values
    return {layer: _routing(path, layer, found, hint) for layer, found in sorted(routers.items())}


def _routing(path: Path, layer: int, found: Mapping[str, NDArray[np.generic]], hint: str) -> Routing:
    if set(found) != set(ROUTER_STATISTICS) or len({values.shape for values in found.values()}) != 1:
        raise BadModelFile(path, f"the router statistics of layer {layer} are incomplete", hint=hint)
    if found["selected"].ndim != 1 or found["selected"].dtype != np.int64 or found["selected"].min() < 0:
        raise BadModelFile(path, f"the router statistics of layer {layer} have no counts of experts", hint=hint)
    if not all(np.isfinite(values.astype(np.float64)).all() for values in found.values()):
        raise BadModelFile(path, f"the router statistics of layer {layer} are not finite", hint=hint)
    floats = {name: values.astype(np.float64) for name, values in found.items() if name != "selected"}
    return Routing(selected=found["selected"].astype(np.int64), **floats)
