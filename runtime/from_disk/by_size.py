"""Chooses how units are read by how much is asked for at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from runtime.from_disk.reader import Reader, Span

# Bytes that are asked for at once. A token asks for a few experts of a layer, a prompt for all of them.
MUCH = 8 << 20


class BySize:
    """A Reader of two: `little` is quick to wake, `much` reads without the thread that computes."""

    def __init__(self, little: Reader, much: Reader) -> None:
        self._little, self._much = little, much

    @property
    def reading(self) -> set[int]:
        return self._little.reading | self._much.reading

    def ask(self, units: Sequence[tuple[int, Sequence[Span]]], *, now: bool) -> None:
        asked = sum(span.length for _, spans in units for span in spans)
        (self._much if asked > MUCH else self._little).ask(units, now=now)

    def hurry(self, units: Collection[int]) -> None:
        self._little.hurry(units)
        self._much.hurry(units)

    def cancel(self, units: Collection[int]) -> set[int]:
        return self._little.cancel(units) | self._much.cancel(units)

    def look(self) -> None:
        self._little.look()
        self._much.look()

    def wait(self, units: Collection[int], stop: Callable[[], bool]) -> bool:
        return self._little.wait(units, stop) and self._much.wait(units, stop)

    def close(self) -> None:
        self._little.close()
        self._much.close()
