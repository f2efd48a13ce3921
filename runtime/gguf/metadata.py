"""Typed, bounded access to the keys of a GGUF header, with errors that name file and key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.base.errors import BadModelFile
from runtime.base.quoted import quoted_name
from runtime.gguf.header import ANOTHER_FILE
from runtime.gguf.values import ArrayValue, Value


@dataclass(frozen=True, slots=True)
class Metadata:
    """The keys of one model. A name that begins with "." belongs to the architecture: ".block_count"."""

    path: Path
    values: Mapping[str, Value]
    architecture: str

    def key(self, name: str) -> str:
        return self.architecture + name if name.startswith(".") else name

    def bad(self, name: str, problem: str) -> BadModelFile:
        return BadModelFile(self.path, f"{quoted_name(self.key(name))} {problem}", hint=ANOTHER_FILE)

    def get(self, name: str) -> Value | None:
        return self.values.get(self.key(name))

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, "is not a text")
        return value

    def integer(self, name: str, *, least: int = 0, most: int = 2**31 - 1, default: int | None = None) -> int:
        """A whole number within bounds; without `default` the key must be there."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise self.bad(name, "is missing")
            return default
        return self._bounded(name, value, least, most)

    def per_layer(
        self, name: str, layers: int, *, most: int = 2**31 - 1, default: int | None = None
    ) -> tuple[int, ...]:
        """One whole number for each layer: the file holds one for all or an array of them."""
        value = self.get(name)
        if not isinstance(value, ArrayValue):
            return (self.integer(name, most=most, default=default),) * layers
        if value.type == "str" or value.count != layers:
            raise self.bad(name, f"is an array of {value.count} {value.type} for {layers} layers")
        return tuple(self._bounded(name, number, 0, most) for number in value.numbers())

    def number(self, name: str) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.bad(name, "is not a number")
        if not math.isfinite(value):
            raise self.bad(name, f"is {value}, not a finite number")
        return float(value)

    def array(self, name: str, types: tuple[str, ...]) -> ArrayValue | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, ArrayValue) or value.type not in types:
            raise self.bad(name, f"is not an array of {' or '.join(types)}")
        return value

    def _bounded(self, name: str, value: Value, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(name, "is not a whole number")
        if not least <= value <= most:
            raise self.bad(name, f"is {value}, not between {least} and {most}")
        return value
