"""The results of a batch: JSON lines in the order of the questions, kept as they come, so that a batch can go on."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.base.errors import DsrError, UsageError
from runtime.base.files import write_stream
from runtime.base.texts import json_text

Result = dict[str, Any]


class FileResults:
    """Results in `path`. Until all are there, they are in a file beside it, in the order in which they ended.

    `heads` are the questions in their order, by key: what a result begins with. `done` are the results of an earlier
    run, which need not be drawn again.
    """

    def __init__(self, path: Path, heads: Mapping[str, Result]) -> None:
        """Raises UsageError if the files have results of other questions or settings."""
        self._path, self._heads = path, heads
        self._partial = path.with_name(f"{path.name}.partial")
        self.done: dict[str, Result] = {}
        for each in (path, self._partial):
            self.done |= _read(each)
        if foreign := self.done.keys() - heads.keys():
            raise UsageError(
                f"{path}: {len(foreign)} of its results belong to other questions or other settings",
                hint="choose another name with --out, or remove the file",
            )
        self._file: BufferedWriter | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._partial.open("ab")
            if self._partial.stat().st_size:
                self._file.write(b"\n")  # behind a line that a kill may have left unfinished
        except OSError as error:
            raise self._unwritable(error) from None
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if not self.done:
            self._partial.unlink(missing_ok=True)

    def add(self, key: str, result: Result) -> None:
        """Keep a result. Raises DsrError if it cannot be written."""
        assert self._file is not None
        self.done[key] = {"key": key, **result}
        try:
            self._file.write(json_text(self.done[key]).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            del self.done[key]
            raise self._unwritable(error) from None

    def finish(self) -> None:
        """Write all results in the order of the questions. Raises DsrError if that fails; nothing is lost then."""
        assert self.done.keys() == self._heads.keys()
        lines = (json_text({**head, **self.done[key], **head}).encode() + b"\n" for key, head in self._heads.items())
        try:
            write_stream(self._path, lines)
        except OSError as error:
            raise self._unwritable(error) from None
        self._partial.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> DsrError:
        kept = f"; {self._partial} keeps {len(self.done)} results" if self.done else ""
        full = error.errno == errno.ENOSPC
        hint = "make room, then run it again" if full else "choose another name with --out"
        return DsrError(f"{self._path}: cannot be written: {error.strerror}{kept}", hint=hint)


class PrintedResults:
    """Results that are printed in the order of the questions, each as soon as those before it are there."""

    def __init__(self, show: Callable[[Result], None], heads: Mapping[str, Result]) -> None:
        self._show, self._heads = show, heads
        self._waiting = list(heads)[::-1]
        self.done: dict[str, Result] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """After a stop, print the results that waited for others."""
        for key in reversed(self._waiting):
            if key in self.done:
                self._show({**self._heads[key], **self.done[key]})

    def add(self, key: str, result: Result) -> None:
        self.done[key] = {"key": key, **result}
        while self._waiting and self._waiting[-1] in self.done:
            first = self._waiting.pop()
            self._show({**self._heads[first], **self.done[first]})

    def finish(self) -> None:
        assert not self._waiting


def _read(path: Path) -> dict[str, Result]:
    """The results of a file by their keys; lines that are none are left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DsrError(f"{path}: cannot be read: {error.strerror}") from None
    found: dict[str, Result] = {}
    for line in lines:
        with suppress(ValueError, RecursionError):
            body = json.loads(line)
            if isinstance(body, Mapping) and isinstance(body.get("key"), str):
                found[body["key"]] = {
                    key: value for key, value in body.items() if key not in ("schema", "number", "id")
                }
    if any(line.strip() for line in lines) and not found:
        raise UsageError(f"{path}: this file has no results of a batch", hint="choose another name with --out")
    return found
