"""The second moments of the inputs of all matrices of a model, in a folder.

`moments.json` says of which source and of which text they are, and lists the parts. A part is one file in numpy's
format, (slices, columns, columns) in float32: sums of x x^T, a slice for each expert or head. Matrices with the same
input (query, key and value; gate and up) share a part. A part is listed once its file is complete, so collecting can
be interrupted. `text.bin` has the tokens that were read: for each sequence their number, then the tokens, in int32.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.round.moment import Moment
from quant.round.watch import Watch, unwatched
from quant.sources.source import Source
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from runtime.base.files import write_atomically, write_stream

_INDEX = "moments.json"
_TEXT = "text.bin"
_SCHEMA = 1
_MAKE = "make them again: dsr imatrix MODEL --moments FOLDER"
# Bytes of prepared moments that are kept for the next rows. One matrix may need more.
_KEPT = 1 << 30
_COPIES = 3  # what a prepared moment holds: H, and its factor for at most two group sizes
_SAMPLED_ROWS = 3  # rows of each tensor that tell one model from another: the first, the middle, the last


@dataclass(frozen=True, slots=True)
class Part:
    """The moments of the input of `weights`: slices from number `first` on. `counts` are the inputs that were summed
    for each slice; an expert that saw no token has 0."""

    file: str
    weights: tuple[str, ...]
    columns: int
    first: int
    counts: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.counts), self.columns, self.columns


@dataclass(frozen=True, slots=True)
class MomentsIndex:
    """`source` is the digest of the weights (`source_digest`), `text` that of the tokens read, of which there were
    `tokens`; `datasets` name the texts."""

    source: str
    text: str
    tokens: int
    datasets: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    complete: bool = False

    @property
    def digest(self) -> str:
        """The same for the same moments: the same weights and the same text."""
        return hashlib.sha256(f"{self.source}\0{self.text}".encode()).hexdigest()


@dataclass(slots=True, eq=False)
class Moments:
    """The moments in a folder. Several threads may ask. `held` lives as long: it keeps others from deleting them."""

    folder: Path
    index: MomentsIndex
    held: object = None
    _prepared: OrderedDict[tuple[str, int], Moment | None] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def weights(self) -> frozenset[str]:
        """The names of the matrices with moments."""
        return frozenset(name for part in self.index.parts for name in part.weights)

    def of(self, weight: str, number: int, watch: Watch = unwatched) -> Moment | None:
        """The moments of slice `number` of a matrix; None where there are none, or no input was seen.

        `watch` may end the reading of a large part. Raises BadModelFile for a damaged file."""
        for part in self.index.parts:
            place = number - part.first
            if weight in part.weights and 0 <= place < len(part.counts):
                return self._of(part, place, watch) if part.counts[place] else None
        return None

    def counts(self, weight: str) -> NDArray[np.int64] | None:
        """How many inputs each slice of a matrix has seen, (slices,); None for a matrix without moments."""
        parts = sorted((part for part in self.index.parts if weight in part.weights), key=lambda part: part.first)
        return np.concatenate([np.array(part.counts, np.int64) for part in parts]) if parts else None

    def _of(self, part: Part, place: int, watch: Watch) -> Moment | None:
        key = part.file, place
        with self._lock:
            if key not in self._prepared:
                try:
                    self._prepared[key] = Moment(self._sums(part)[place], part.counts[place], watch)
                except ValueError:  # all inputs were zero
                    self._prepared[key] = None
            self._prepared.move_to_end(key)
            while len(self._prepared) > 1 and self._size() > _KEPT:
                self._prepared.popitem(last=False)
            return self._prepared[key]

    def _size(self) -> int:
        return sum(_COPIES * each.damped.nbytes for each in self._prepared.values() if each)

    def diagonals(self) -> Mapping[str, tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """For each matrix the sums of the squared inputs, (slices, columns), and their counts, (slices,)."""
        found: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}
        for part in sorted(self.index.parts, key=lambda part: part.first):
            sums = np.einsum("scc->sc", self._sums(part)).astype(np.float32)
            counts = np.array(part.counts, np.int64)
            for name in part.weights:
                if name in found:
                    earlier = found[name]
                    found[name] = np.concatenate([earlier[0], sums]), np.concatenate([earlier[1], counts])
                else:
                    found[name] = sums, counts
        return found

    def _sums(self, part: Part) -> NDArray[np.float32]:
        path = self.folder / part.file
        try:
            sums = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadModelFile(path, f"cannot be read: {error}", hint=_MAKE) from error
        if sums.shape != part.shape or sums.dtype != np.float32:
            raise BadModelFile(path, f"holds {sums.shape}, not {part.shape}", hint=_MAKE)
        return np.asarray(sums)

    def check_source(self, digest: str) -> None:
        """Raises Incompatible unless the moments are of the source with this digest: those of another model make
        rounding worse."""
        if self.index.source != digest:
            raise Incompatible(
                f"{self.folder}: these moments are of other weights", hint="leave out --moments, or make them again"
            )

    def text(self) -> tuple[tuple[int, ...], ...] | None:
        """The tokens of the sequences that were read; None where the folder does not have them."""
        try:
            numbers = np.fromfile(self.folder / _TEXT, "<i4")
        except OSError:
            return None
        if hashlib.sha256(numbers.tobytes()).hexdigest() != self.index.text:
            return None
        found, at = [], 0
        while at < len(numbers):
            end = at + 1 + int(numbers[at])
            found.append(tuple(map(int, numbers[at + 1 : end])))
            at = end
        return tuple(found)

    def keep_text(self, sequences: Iterable[Sequence[int]]) -> None:
        """Write the tokens that are read. Raises OSError."""
        write_atomically(self.folder / _TEXT, b"".join(map(_as_bytes, sequences)))

    def add(self, part: Part, sums: NDArray[np.float32]) -> None:
        """Write a part, then list it. Raises OSError."""
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(sums))
        write_stream(self.folder / part.file, [head.getvalue(), np.ascontiguousarray(sums).data.cast("B")])
        self._note(MomentsIndex(**(_fields(self.index) | {"parts": (*self.index.parts, part)})))

    def finish(self) -> None:
        """Note that all parts are there. Raises OSError."""
        self._note(MomentsIndex(**(_fields(self.index) | {"complete": True})))

    def _note(self, index: MomentsIndex) -> None:
        text = json.dumps({"schema": _SCHEMA} | asdict(index), indent=1)
        write_atomically(self.folder / _INDEX, text.encode())
        self.index = index


def begin(folder: Path, source: str, text: str, tokens: int, datasets: Sequence[str]) -> Moments:
    """The moments to collect in `folder`: with the parts of an earlier call for the same source and text, else empty.

    Raises DsrError for a place that cannot be written, DoesNotFit for a full disk."""
    wanted = MomentsIndex(source, text, tokens, tuple(datasets))
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = read(folder)
        except (NotFound, BadModelFile):
            found = None
        if found is not None and found.index.digest == wanted.digest:
            return found
        for part in found.index.parts if found else ():
            (folder / part.file).unlink(missing_ok=True)
        moments = Moments(folder, wanted)
        moments._note(wanted)
        return moments


def read(folder: Path) -> Moments:
    """The moments in `folder`, which may be incomplete. Raises NotFound, BadModelFile."""
    path = folder / _INDEX
    try:
        found: Any = json.loads(path.read_bytes())
        if found.pop("schema") != _SCHEMA:
            raise BadModelFile(path, "has another form", hint=_MAKE)
        parts = tuple(_part(each) for each in found.pop("parts"))
        found["datasets"] = tuple(map(str, found["datasets"]))
        index = MomentsIndex(parts=parts, **found)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{folder}: holds no moments", hint=_MAKE) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadModelFile(path, "is no list of moments", hint=_MAKE) from error
    return Moments(folder, index)


def read_complete(folder: Path) -> Moments:
    """The moments in `folder`. Raises NotFound, BadModelFile; Incompatible when collecting was interrupted."""
    moments = read(folder)
    if not moments.index.complete:
        raise Incompatible(f"{folder}: is incomplete", hint="continue: dsr imatrix MODEL --moments FOLDER")
    return moments


def _part(entry: Mapping[str, Any]) -> Part:
    file = str(entry["file"])
    if Path(file).name != file:  # never outside of the folder
        raise ValueError(file)
    counts = tuple(int(count) for count in entry["counts"])
    return Part(file, tuple(map(str, entry["weights"])), int(entry["columns"]), int(entry["first"]), counts)


def _fields(index: MomentsIndex) -> dict[str, Any]:
    return {name: getattr(index, name) for name in MomentsIndex.__dataclass_fields__}


def source_digest(source: Source) -> str:
    """The same for the same weights, whatever file they are in: names, shapes, and some rows of the matrices.

    Rows count as float16, so that BF16 weights and their conversion to F16 are the same source."""
    out = hashlib.sha256()
    for tensor in sorted(source.tensors, key=lambda tensor: tensor.name):
        if len(tensor.shape) < 2:
            continue
        out.update(f"{tensor.name}\0{tensor.shape}\n".encode())
        for row in sorted({number * (tensor.rows - 1) // (_SAMPLED_ROWS - 1) for number in range(_SAMPLED_ROWS)}):
            with np.errstate(over="ignore"):
                out.update(source.read(tensor, row, 1).astype(np.float16).tobytes())
    return out.hexdigest()


def text_digest(sequences: Iterable[Sequence[int]]) -> str:
    """The same for the same tokens in the same sequences."""
    out = hashlib.sha256()
    for tokens in sequences:
        out.update(_as_bytes(tokens))
    return out.hexdigest()


def _as_bytes(tokens: Sequence[int]) -> bytes:
    return np.array([len(tokens), *tokens], "<i4").tobytes()
