"""Values by key in one JSON file: results that cost time to measure again, and nothing else when they are lost."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from runtime.base.files import write_atomically
from runtime.base.lock import lock_path, try_lock

_WAIT_SECONDS = 10.0  # for another process that is writing

Value = TypeVar("Value")


def finite(value: Any) -> float:
    """Returns a finite number of the file. Raises ValueError, TypeError for anything else."""
    # A whole number can be too large to be a float.
    if isinstance(value, str) or abs(value) > sys.float_info.max or not math.isfinite(number := float(value)):
        raise ValueError("no finite number")
    return number


class KeyedCache(Generic[Value]):
    """The cache in the file at `path`. Values are what `json` can write.

    `read` checks one value of the file: it returns the value, or raises ValueError, TypeError or KeyError. A file or a
    value that cannot be read counts as absent, and the next `put` replaces it. Several processes may put values; of
    two values for one key the last one counts.
    """

    def __init__(self, path: Path, read: Callable[[Any], Value]) -> None:
        self.path = path
        self._read = read
        self._put: dict[str, Value] = {}

    def get(self, key: str) -> Value | None:
        """Returns the value of `key`, or None."""
        if key in self._put:
            return self._put[key]
        with suppress(ValueError, TypeError, KeyError):
            return self._read(self._content()[key])
        return None

    def put(self, values: Mapping[str, Value]) -> None:
        """Adds the values. If the file cannot be written, only this object has them."""
        self._put |= values
        with suppress(OSError):
            lock = try_lock(lock_path(self.path), wait=_WAIT_SECONDS)
            if lock is None:
                return
            try:
                content = json.dumps({**self._content(), **values}, indent=1)
                write_atomically(self.path, content.encode())
            finally:
                lock.release()

    def _content(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
