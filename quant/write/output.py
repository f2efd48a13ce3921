"""The output files of a plan, and the journal of the files that are unfinished.

`model.gguf` is written as `model.gguf.partial`, next to `model.gguf.journal`, and renamed when it is complete on disk.
Split files are renamed one after the other. The first file is renamed last, because readers start from it.

The journal says which work the unfinished files belong to and which tensors are on the disk. It has one JSON object per
line; dsr flushes the weights before it writes the line, and ignores a line that a kill cut short. Only the process that
holds the lock `NAME.journal.lock` writes. The weights are in the unfinished file, so the journal keeps only names:
`dsr.store.ledger` keeps results.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from quant.gguf.writer import Layout, divide, layout, shard_paths, split_entries
from quant.plan import QuantPlan
from quant.sources.source import Source
from runtime.base.errors import DoesNotFit, NotFound, UsageError
from runtime.base.events import Listener, Notice
from runtime.base.lock import lock_path, try_lock
from runtime.base.types import ByteCount

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quant.round.moments import Moments
    from quant.write.stages import Stages

_JOURNAL = "dsr.quantize/1"


@dataclass(frozen=True, slots=True)
class Output:
    """`out` is the name asked for, `targets` are those of the finished files; `ranges`: the plan's tensors in each."""

    out: Path
    targets: tuple[Path, ...]
    layouts: tuple[Layout, ...]
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, plan: QuantPlan, out: Path, split_max_size: int | None = None) -> Output:
        """One file, or as many as `split_max_size` bytes of weights per file need."""
        count = len(plan.tensors)
        ranges = ((0, count),) if split_max_size is None else divide(plan.tensors, split_max_size)
        if len(ranges) == 1:
            return cls(out, (out,), (layout(plan.metadata, plan.tensors),), ranges)
        layouts = []
        for number, (first, end) in enumerate(ranges):
            own = split_entries(number, len(ranges), count)
            layouts.append(layout((*plan.metadata, *own) if number == 0 else own, plan.tensors[first:end]))
        return cls(out, shard_paths(out, len(ranges)), tuple(layouts), ranges)

    @property
    def folder(self) -> Path:
        return self.targets[0].parent

    @property
    def partials(self) -> tuple[Path, ...]:
        return tuple(target.with_name(target.name + ".partial") for target in self.targets)

    @property
    def bytes(self) -> ByteCount:
        return ByteCount(sum(each.size for each in self.layouts))

    def all_there(self) -> bool:
        """Whether each file exists in its full size, as partial or finished file."""
        places = zip(self.targets, self.partials, self.layouts, strict=True)
        return all(_size(partial) == each.size or _size(target) == each.size for target, partial, each in places)

    def check_places(self, sources: Sequence[Path]) -> None:
        """Raise NotFound without a folder to write to, UsageError where a name is taken by a folder or a source."""
        if not self.folder.is_dir():
            raise NotFound(f"{self.folder}: no such folder", hint=f"mkdir -p {self.folder}")
        for place in (*self.targets, *self.partials):
            if place.is_dir():
                raise UsageError(f"{place} is a folder", hint="give the name of a .gguf file to write")
            if any(place.exists() and source.exists() and place.samefile(source) for source in sources):
                raise UsageError(f"{place} is the source itself", hint="give another name for the file to write")

    def refuse_existing(self, journal: Journal, *, renaming: bool) -> None:
        """Raise UsageError for a file that exists. When `renaming`, a file without an unfinished one is allowed,
        because an earlier call of this work renamed it before it was killed."""
        places = zip(self.targets, self.partials, strict=True)
        existing = [target for target, partial in places if target.exists() and (partial.exists() or not renaming)]
        if existing:
            if not journal.digest:
                journal.remove()
            raise _exists(existing[0])

    def prepare(self, journal: Journal, digest: str, listen: Listener) -> None:
        """Keep what an earlier call wrote of the same work, else start again. Raises DoesNotFit for a small disk."""
        places = zip(self.partials, self.layouts, strict=True)
        kept = journal.digest == digest and not journal.complete and all(_size(each) == it.size for each, it in places)
        if not kept:
            if journal.digest and journal.digest != digest:
                other = "other weights, another plan or another version"
                listen(Notice(f"{journal.path.name}: belongs to {other}: the work starts again"))
            for name in (*journal.files, *(partial.name for partial in self.partials)):
                (self.folder / Path(name).name).unlink(missing_ok=True)
        room = ByteCount(shutil.disk_usage(self.folder).free + sum(_occupied(partial) for partial in self.partials))
        if self.bytes > room:
            if not kept:
                journal.remove()
            raise DoesNotFit(
                f"{self.folder}: {self.bytes} are needed, {room} are free",
                hint="free some space, or write to another disk; a smaller type needs less",
            )
        if not kept:
            journal.begin(digest, [partial.name for partial in self.partials])

    def open(self, stack: ExitStack) -> list[int]:
        """The unfinished files in their full size, with their headers, as long as `stack` is open."""
        handles = []
        for partial, each in zip(self.partials, self.layouts, strict=True):
            handles.append(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            stack.callback(os.close, handles[-1])
            os.ftruncate(handles[-1], each.size)
            write_at(handles[-1], each.header, 0)
        return handles

    def rename(self) -> None:
        """Give the files their final names. The first of several is renamed last; an older one is removed before."""
        places = list(zip(self.partials, self.targets, strict=True))
        if len(places) > 1 and places[0][0].exists():
            places[0][1].unlink(missing_ok=True)
        for partial, target in reversed(places):
            if partial.exists():
                os.replace(partial, target)
        if os.name == "posix":
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def check_place(out: Path, sources: Sequence[Path], *, force: bool) -> None:
    """Check the place of a file before there is a plan, as `quant.write.execute.quantize` does with a plan.

    Raises NotFound (no such folder), UsageError (a folder, the source itself, or a file that exists and that no
    unfinished work belongs to)."""
    Output(out, (out,), (), ()).check_places(sources)
    if out.exists() and not force and not journal_of(out).exists():
        raise _exists(out)


def journal_of(out: Path) -> Path:
    """The journal next to an unfinished file."""
    return out.with_name(out.name + ".journal")


def _exists(out: Path) -> UsageError:
    return UsageError(f"{out} exists already", hint="give another name, or --force to replace it")


def work_digest(
    source: Source, plan: QuantPlan, output: Output, moments: Moments | None = None, stages: Stages | None = None
) -> str:
    """The same only for work that gives the same bytes. It covers the engine, the plan, the files to write, the
    source's files as they are now, the importances, second moments and stages that are used, and the version of
    rounding."""
    from runtime.llama import ENGINE_VERSION

    importance = source.importance or {}
    rounding = ""
    if moments is not None:
        from quant.round import rounding as method

        rounding = f"{method.VERSION}\0{moments.index.digest}\0{stages.digest if stages else ''}"
    out = hashlib.sha256(f"{ENGINE_VERSION}\0{plan.digest}\0{output.ranges}\0{rounding}\0".encode())
    for path in source.files:
        facts = path.stat()
        out.update(f"{path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    for tensor in plan.tensors:
        values = importance.get(tensor.name)
        if values is not None:
            out.update(tensor.name.encode() + values.tobytes())
    return out.hexdigest()


def write_at(handle: int, data: bytes | NDArray[np.uint8], at: int) -> None:
    rest = memoryview(data if isinstance(data, bytes) else data.reshape(-1).data)
    while rest:
        written = os.pwrite(handle, rest, at)
        rest, at = rest[written:], at + written


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _occupied(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


class Journal:
    """An open and locked journal. `digest` names its work ("" for a new journal), `files` are the unfinished files,
    `finished` the finished tensors. `complete`: all are finished, and only renaming may be left."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError when another process writes the same file, OSError."""
        self.path = path
        lock = try_lock(lock_path(path))
        if lock is None:
            raise UsageError(f"{path.with_suffix('')}: another dsr is writing this file", hint="wait for it")
        with ExitStack() as held:
            held.callback(lock.release)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            held.callback(os.close, self._file)
            self._read()
            self._held = held.pop_all()

    def _read(self) -> None:
        self.digest, self.complete = "", False
        self.files: tuple[str, ...] = ()
        self.finished: set[str] = set()
        data, sound = self.path.read_bytes(), 0
        for number, line in enumerate(data.splitlines(keepends=True)):
            try:
                entry: Any = json.loads(line if line.endswith(b"\n") else b"")
                if number == 0 and entry["journal"] == _JOURNAL:
                    self.digest, self.files = str(entry["digest"]), tuple(map(str, entry["files"]))
                else:
                    self.finished.update(map(str, entry["finished"]))
                    self.complete = bool(entry["complete"])
            except (ValueError, KeyError, TypeError):
                break
            sound += len(line)
        os.ftruncate(self._file, sound)

    def begin(self, digest: str, files: Iterable[str]) -> None:
        """Clear the journal and start another work."""
        os.ftruncate(self._file, 0)
        self.digest, self.files, self.finished, self.complete = digest, tuple(files), set(), False
        self._append({"journal": _JOURNAL, "digest": digest, "files": self.files})

    def note(self, finished: Iterable[str], *, complete: bool = False) -> None:
        """Note that these tensors are on the disk. Their file must have been flushed before."""
        names = list(finished)
        self.finished.update(names)
        self.complete = complete
        self._append({"finished": names, "complete": complete})

    def _append(self, entry: dict[str, object]) -> None:
        os.lseek(self._file, 0, os.SEEK_END)
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._held.close()


class Keeper:
    """Notes finished tensors during the work: a thread flushes the files, then writes the note. Tensors that finish
    meanwhile wait for the next round. A context manager, which notes the rest when the work ends, also by an error.
    """

    def __init__(self, journal: Journal, files: Sequence[int]) -> None:
        self._journal = journal
        self.files = files
        self._waiting: list[str] = []
        self._thread = ThreadPoolExecutor(1, "journal")
        self._round: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._thread.shutdown()
        if self._waiting:
            with suppress(OSError):  # the user should see the error that ended the work
                self._flush(self._waiting, complete=False)

    def finished(self, tensor: str) -> None:
        """All rows of a tensor have been written. Raises the OSError of an earlier flush."""
        self._waiting.append(tensor)
        if self._round is None or self._round.done():
            if self._round is not None:
                self._round.result()
            names, self._waiting = self._waiting, []
            self._round = self._thread.submit(self._flush, names, complete=False)

    def complete(self) -> None:
        """Everything has been written; on return it is on the disk."""
        if self._round is not None:
            self._round.result()
        names, self._waiting = self._waiting, []
        self._flush(names, complete=True)

    def _flush(self, names: list[str], *, complete: bool) -> None:
        for file in self.files:
            os.fsync(file)
        self._journal.note(names, complete=complete)
