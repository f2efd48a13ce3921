"""Finished pieces of long work: JSON objects in a file, one per line, added and never changed. Work resumes from them.

When the file is opened again, a last line that a kill cut short is removed. One process at a time may add.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.base.disk_errors import disk_errors
from runtime.base.errors import UsageError, VerificationFailed
from runtime.base.lock import lock_path, try_lock
from runtime.base.texts import json_text

Entry = Mapping[str, Any]


class Ledger:
    """A context manager. `key` returns the key of an entry; of several entries with one key the last counts.

    Entries stay in the file: memory holds only their places.
    """

    def __init__(self, path: Path, key: Callable[[Entry], Hashable]) -> None:
        """Raises UsageError while another process has the file open, VerificationFailed for a damaged line."""
        self.path = path
        self._key = key
        self._places: dict[Hashable, tuple[int, int]] = {}
        with ExitStack() as held:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = try_lock(lock_path(path))
                if lock is None:
                    raise UsageError(
                        f"{path.parent}: another dsr is writing here",
                        hint="wait for it, or choose another --out FOLDER",
                    )
                held.callback(lock.release)
                path.touch()
                # Each entry goes to the system at once, so that a kill costs at most the entry that is being written.
                self._file = held.enter_context(path.open("r+b", buffering=0))
            self._end = self._index()
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._held.close()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, entry: Entry) -> None:
        """Raises DoesNotFit on a full disk, DsrError when the system refuses for another reason."""
        line = json_text(entry).encode() + b"\n"
        with disk_errors(self.path):
            self._file.seek(self._end)
            written = self._file.write(line)
            while written < len(line):
                written += self._file.write(line[written:])
        self._places[self._key(entry)] = self._end, len(line)
        self._end += len(line)

    def entry(self, key: Hashable) -> dict[str, Any]:
        """Returns the entry of a key. Raises KeyError."""
        place, length = self._places[key]
        self._file.seek(place)
        found: dict[str, Any] = json.loads(self._file.read(length))
        return found

    def _index(self) -> int:
        """Reads all entries once and removes a torn last line. Returns the size of the file."""
        place = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    if not line.endswith(b"\n"):
                        break
                    self._places[self._key(json.loads(line))] = place, len(line)
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise VerificationFailed(
                        f"{self.path}, line {number} is damaged",
                        hint="delete the line, or choose another folder with --out",
                    ) from None
                place += len(line)
        self._file.truncate(place)
        return place
