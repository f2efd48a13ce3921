"""Numbers that took long to measure, in a small file: whoever asks again, or was stopped, need not measure again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from runtime.base.files import write_atomically


class Figures:
    """A file of named numbers that belong to one key. Anything else found there is replaced."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self._key = path, key
        self._values: dict[str, float] = {}
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == key:
                found = {str(name): float(value) for name, value in kept["figures"].items()}
                self._values = {name: value for name, value in found.items() if math.isfinite(value)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def put(self, figures: Mapping[str, float]) -> None:
        """Keep these, on the disk at once. Raises OSError."""
        self._values |= figures
        write_atomically(self.path, json.dumps({"key": self._key, "figures": self._values}, indent=1).encode())
