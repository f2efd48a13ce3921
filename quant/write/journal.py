"""The journal of an unfinished file: which work it belongs to, and which tensors are safely on the disk.

One JSON object per line, each written after what it speaks of was flushed. A line that a kill cut short counts for
nothing. Only the process that holds the lock `NAME.journal.lock` writes. The pieces themselves are bytes in the
unfinished file, so the journal keeps only their names: it is no `dsr.store.ledger`, which keeps results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.base.errors import UsageError
from runtime.base.lock import lock_path, try_lock

_KIND = "dsr.quantize/1"


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
                if number == 0 and entry["journal"] == _KIND:
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
        self._append({"journal": _KIND, "digest": digest, "files": self.files})

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
    """Notes finished tensors while the work goes on: a thread flushes the files, then writes the note, and what was
    finished meanwhile waits for the next round. A context manager, which notes the rest however the work ends.
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
            with suppress(OSError):  # what ends the work is what the user should hear of
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
