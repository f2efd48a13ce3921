"""Keeps units in memory while the model computes: reads what is needed, drops what is worth least."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed
from runtime.base.types import ByteCount
from runtime.from_disk.reader import PAGE, Reader, ReadFile, Span
from runtime.from_disk.units import Stack, Units
from runtime.from_disk.use import DiskUse

# Units that are chosen to be dropped at a time: the choice takes longer than to drop one, and ages.
_VICTIMS = 4
MAPPED_INSTEAD = "the system can map the file instead, slowly: --from-disk off --ctx-size 2048"


class Policy(Protocol):
    """Decides which units stay in memory. See `runtime.from_disk.policy`."""

    def used(self, index: int, counts: NDArray[np.int64]) -> None:
        """A pass has computed the layer at `index`; `counts` are the tokens that chose each of its units."""

    def worth(self, index: int) -> NDArray[np.float64]:
        """The worth of each unit while the layer at `index` computes. The least is dropped first."""


class Move(Protocol):
    """Moves memory that is taken within the region, so that it need not be given back and taken again."""

    def __call__(self, source: int, target: int, length: int) -> bool:
        """Move `length` bytes from one place of the region to another. False if the system cannot."""


class StreamedWeights:
    """The units of a model in reserved memory. Call it from the thread that computes."""

    def __init__(
        self,
        units: Units,
        files: Sequence[Path],
        region: mmap.mmap,
        places: Sequence[int],
        most: int,
        policy: Policy,
        stop: Callable[[], bool],
        move: Move,
        new_reader: Callable[[Sequence[ReadFile], memoryview], Reader],
    ) -> None:
        """`places` are where the first slice of each stack lies in `region`; a slice follows `PAGE` bytes after the one
        before. `most`: bytes of units that may be in memory. Raises DsrError if a file cannot be opened."""
        self.units, self.policy, self.use = units, policy, DiskUse()
        self._region, self.most, self._stop, self._move = region, most, stop, move
        self._stack = ExitStack()
        with ExitStack() as opening:
            opening.callback(self._stack.close)
            self._files: list[ReadFile] = []
            for path in files:
                self._files.append(ReadFile(path))
                self._stack.callback(self._files[-1].close)
            self._memory = memoryview(region)
            self._stack.callback(self._memory.release)
            self._reader = new_reader(self._files, self._memory)
            self._stack.callback(self._reader.close)
            opening.pop_all()
        self._stacks: list[list[tuple[Stack, int]]] = [[] for _ in units.layers]
        for stack, place in zip(units.stacks, places, strict=True):
            self._stacks[stack.index].append((stack, place))
        self._sizes = tuple(size for size in units.paged_sizes for _ in range(units.experts))
        self._held = bytearray(units.count)  # 1: in memory, or being read
        self._victims: list[int] = []  # the units of least worth when it was last asked, the least at the end
        self._wanted: set[int] = set()  # by the layer that computes now
        self._complete = True  # whether all of them are in memory or being read
        self._last: set[int] = set()  # by the layer before, if it still computes
        self._expected: set[int] = set()  # by the layer after it
        self._ahead: set[int] = set()  # asked for before they were needed, and not needed since
        self._bytes = 0
        self._known: dict[int, Sequence[Span]] = {}
        self._spare: list[int] = []  # units that were dropped, whose memory is still taken

    @property
    def largest(self) -> int:
        """Bytes of the largest unit, in whole pages."""
        return max(self._sizes)

    @property
    def direct(self) -> bool:
        """Whether all files are read past the system's cache."""
        return all(file.direct for file in self._files)

    @property
    def held(self) -> int:
        """Bytes of units in memory or being read."""
        return self._bytes

    @property
    def whole(self) -> int:
        """Bytes of all units, in whole pages."""
        return sum(self._sizes)

    def begin(self, most: int) -> None:
        """Before each pass, during which `most` bytes of units may be in memory.

        Raises WeightsLost if a file was changed."""
        self.use.passes += 1
        self.check()
        self.limit(most)

    def limit(self, most: int) -> None:
        """While nothing is computed: from now on `most` bytes of units may be in memory."""
        self.most = most
        if self._bytes > most:
            self._last, self._wanted, self._expected = set(), set(), set()  # nothing computes now
            self._make_room(0, 0)
        self._give_back()  # also after a pass that ended early

    def check(self) -> None:
        """Raises WeightsLost if a file was changed, so that what was read may be of another model."""
        for file in self._files:
            file.check()

    def need(self, index: int, counts: NDArray[np.int64], *, with_last: bool = False) -> None:
        """Begin to read the units of a layer with `counts` above zero that are not in memory; `wait` for them.

        With `with_last` the units that the call before needed are still needed. Raises EngineFailed if all of them need
        more than the memory, and as `wait` does where room must be waited for."""
        self._expected.clear()
        self._reader.look()
        first = index * self.units.experts
        chosen = [first + each for each in np.flatnonzero(counts).tolist()]
        self._last, self._wanted = self._wanted if with_last else set(), set(chosen)
        if self._ahead:
            self._forget({unit for unit in self._ahead if first <= unit < first + self.units.experts} - self._wanted)
        missing = [unit for unit in chosen if not self._held[unit]]
        guessed = self._ahead & self._wanted
        if guessed:
            self._ahead -= guessed
            self._reader.hurry(guessed)
        self.use.chosen += len(chosen)
        self.use.hits += len(chosen) - len(missing) - len(self._wanted & self._reader.reading)
        self.use.ahead_used += len(guessed)
        self._complete = True
        if missing:
            size = len(missing) * self._sizes[first]
            room = self._make_room(index, size)
            self._complete = room is not None
            if room is None:
                return
            if room < size:
                raise EngineFailed(
                    f"a layer needs {ByteCount(size)} more of weights, and {ByteCount(room)} of {ByteCount(self.most)} "
                    "are free",
                    hint=MAPPED_INSTEAD,
                )
            self._read(missing, now=True)
        self._give_back()
        self.policy.used(index, counts)  # while the disk reads

    def expect(self, index: int, experts: Iterable[int]) -> None:
        """Begin to read units of a later layer ahead, the likeliest first, as far as there is room for them."""
        first = index * self.units.experts
        expected = [first + expert for expert in experts]
        self._expected.update(expected)
        wanted = [unit for unit in expected if not self._held[unit]]
        if not wanted:
            return
        size = self._sizes[first]
        fitting = wanted[: self._room(index, len(wanted) * size) // size]
        self._read(fitting, now=False)
        self._ahead.update(fitting)
        self._give_back()

    def wait(self) -> bool:
        """Wait until the needed units are in memory. False if a stop was wanted before.

        Raises DiskFailed, or WeightsLost for a file that was cut."""
        return self._complete and self._wait_for(self._wanted)

    def close(self) -> None:
        self._stack.close()

    def _wait_for(self, units: set[int]) -> bool:
        if self._reader.reading.isdisjoint(units):
            return True
        started = time.perf_counter()
        try:
            return self._reader.wait(units, self._stop)
        finally:
            self.use.waited += time.perf_counter() - started

    def _forget(self, units: set[int]) -> None:
        """Do not read these expected units, as far as reading has not begun."""
        self._ahead -= units
        cancelled = self._reader.cancel(units)
        self.use.ahead_in_vain += len(units) - len(cancelled)
        for unit in cancelled:
            self._release(unit)  # it may have got the memory of another one
            self.use.bytes_read -= sum(span.length for span in self._spans(unit))

    def _room(self, index: int, size: int) -> int:
        """Drop units of least worth, none that is needed or expected, until `size` bytes are free.

        Returns the bytes that are free, which are fewer if nothing else can go."""
        free = self.most - self._bytes
        if free >= size:
            return free
        kept = self._last | self._wanted | self._expected | self._reader.reading
        while free < size:
            if not self._victims:
                self._victims = self._least(index, kept)
                if not self._victims:
                    break
            unit = self._victims.pop()
            if self._held[unit] and unit not in kept:
                self._release(unit)
                free += self._sizes[unit]
        return free

    def _least(self, index: int, kept: set[int]) -> list[int]:
        """A few units of least worth in memory, the least at the end; none of `kept`."""
        droppable = np.array(np.frombuffer(self._held, np.bool_))
        droppable[list(kept)] = False
        candidates = np.flatnonzero(droppable)
        worth = self.policy.worth(index)[candidates]
        if len(worth) > _VICTIMS:
            few = np.argpartition(worth, _VICTIMS)[:_VICTIMS]
            candidates, worth = candidates[few], worth[few]
        least: list[int] = candidates[np.argsort(worth, kind="stable")[::-1]].tolist()
        return least

    def _make_room(self, index: int, size: int) -> int | None:
        """As `_room`, if need be after everything that is being read has come: a wrong guess can go only then.

        None if a stop was wanted before."""
        room = self._room(index, size)
        if room >= size:
            return room
        return self._room(index, size) if self._wait_for(set(self._reader.reading)) else None

    def _read(self, units: Sequence[int], *, now: bool) -> None:
        asked: list[tuple[int, Sequence[Span]]] = []
        for unit in units:
            self._held[unit] = 1
            self._bytes += self._sizes[unit]
            spans = self._spans(unit)
            self.use.bytes_read += sum(span.length for span in spans)
            if self._spare:
                self._reuse(self._spans(self._spare.pop()), spans)
            asked.append((unit, spans))
        self._reader.ask(asked, now=now)

    def _release(self, unit: int) -> None:
        self._held[unit] = 0
        self._ahead.discard(unit)
        self._bytes -= self._sizes[unit]
        self._spare.append(unit)

    def _reuse(self, spare: Sequence[Span], spans: Sequence[Span]) -> None:
        """Let `spans` have the memory of `spare`: the system clears memory that it gives, which takes four times the
        processor time of the read."""
        for n, old in enumerate(spare):  # the layers of a dense model may have different numbers of matrices
            new = spans[n] if n < len(spans) else None
            if new is None or old.length != new.length or not self._move(old.place, new.place, new.length):
                self._region.madvise(mmap.MADV_DONTNEED, old.place, old.length)

    def _give_back(self) -> None:
        """Give memory that nothing reused to the system."""
        while self._spare:
            for span in self._spans(self._spare.pop()):
                self._region.madvise(mmap.MADV_DONTNEED, span.place, span.length)

    def _spans(self, unit: int) -> Sequence[Span]:
        """The parts of a unit. They are made when it is first read, and kept."""
        found = self._known.get(unit)
        if found is None:
            index, expert = divmod(unit, self.units.experts)
            found = self._known[unit] = [_span(stack, place, expert) for stack, place in self._stacks[index]]
        return found


def _span(stack: Stack, place: int, expert: int) -> Span:
    """The whole pages around one slice. The memory is laid out so that no two slices share a page."""
    begin = stack.offset + expert * stack.size
    before = begin % PAGE
    length = -(-(before + stack.size) // PAGE) * PAGE
    return Span(stack.file, begin - before, place + expert * (stack.size + PAGE) - before, length, before + stack.size)
