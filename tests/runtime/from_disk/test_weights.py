import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.base.errors import DiskFailed, DsrError, EngineFailed
from runtime.from_disk import reader
from runtime.from_disk.reader import PAGE, ThreadedReader
from runtime.from_disk.units import Stack, Units
from runtime.from_disk.use import DiskUse
from runtime.from_disk.weights import StreamedWeights

LAYERS, EXPERTS, SIZE = 2, 4, 1000
ONE = 2 * PAGE  # the memory of a unit: its page, and one more for a slice that begins within a page


class Fixed:
    """A policy that was told what each unit is worth."""

    def __init__(self) -> None:
        self.worths = np.zeros(LAYERS * EXPERTS)
        self.seen: list[tuple[int, list[int]]] = []

    def used(self, index: int, counts: NDArray[np.int64]) -> None:
        self.seen.append((index, counts.tolist()))

    def worth(self, index: int) -> NDArray[np.float64]:
        return self.worths


class Opened:
    def __init__(self, folder: Path, most: int) -> None:
        path = folder / "model"
        path.write_bytes(bytes(100) + b"".join(bytes([unit]) * SIZE for unit in range(LAYERS * EXPERTS)))
        stacks = tuple(
            Stack(f"blk.{layer}.x", layer, 0, 100 + layer * EXPERTS * SIZE, SIZE, EXPERTS) for layer in range(LAYERS)
        )
        self.region = mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.places = [stack.offset % PAGE + 20 * PAGE * stack.index for stack in stacks]
        self.policy = Fixed()
        self.stopped = False
        units = Units((0, 1), EXPERTS, stacks, routed=True)
        self.moved, self.can_move = 0, True
        self.weights = StreamedWeights(
            units, [path], self.region, self.places, most, self.policy, lambda: self.stopped, self.move, ThreadedReader
        )

    def move(self, source: int, target: int, length: int) -> bool:
        """As the system does it: what was there comes along, and the old place is empty."""
        if not self.can_move:
            return False
        self.region[target : target + length] = self.region[source : source + length]
        self.region[source : source + length] = bytes(length)
        self.moved += self.can_move
        return self.can_move

    def need(self, index: int, *experts: int) -> None:
        self.weights.need(index, np.bincount(experts, minlength=EXPERTS))
        assert self.weights.wait()

    def has(self, index: int, expert: int) -> bool:
        place = self.places[index] + expert * (SIZE + PAGE)
        return self.region[place : place + SIZE] == bytes([index * EXPERTS + expert]) * SIZE


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path, 3 * ONE)
    yield made
    made.weights.close()


def test_needed_units_are_in_memory(opened: Opened) -> None:
    opened.need(0, 1, 3)
    assert opened.has(0, 1) and opened.has(0, 3) and not opened.has(0, 2)
    use = opened.weights.use
    assert (use.chosen, use.hits, use.bytes_read) == (2, 0, 3 * PAGE)  # the slice of expert 3 is on two pages
    before = use.copy()
    opened.need(0, 1)
    assert (use.chosen, use.hits, use.bytes_read) == (3, 1, 3 * PAGE)
    assert use.since(before) == DiskUse(chosen=1, hits=1)
    assert opened.policy.seen == [(0, [0, 1, 0, 1]), (0, [0, 1, 0, 0])]


def test_a_file_that_cannot_be_opened_leaves_none_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(PAGE))
    units = Units((0,), 1, (Stack("a", 0, 0, 0, PAGE, 1),), routed=False)
    region, files = mmap.mmap(-1, 2 * PAGE), [tmp_path / "a", tmp_path / "b"]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DsrError, match="b: cannot be read"):
        StreamedWeights(units, files, region, [0], 2 * PAGE, Fixed(), lambda: False, lambda *_: False, ThreadedReader)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_least_worth_is_dropped_and_what_is_needed_never(opened: Opened) -> None:
    opened.policy.worths[:4] = 5, 1, 4, 3
    opened.need(0, 1, 2, 3)
    opened.need(0, 1, 0)
    assert opened.has(0, 1) and opened.has(0, 0) and opened.has(0, 2) and not opened.has(0, 3)
    assert opened.weights.held == 3 * ONE


def test_memory_moves_from_what_is_dropped_to_what_is_read(opened: Opened) -> None:
    opened.need(0, 1, 2, 3)
    opened.need(1, 0, 1)
    assert opened.moved == 2
    assert opened.has(1, 0) and opened.has(1, 1)


def test_memory_that_cannot_move_is_given_back(opened: Opened) -> None:
    opened.can_move = False
    opened.need(0, 1, 2, 3)
    opened.need(1, 0, 1, 2)
    assert opened.has(1, 0) and not any(opened.has(0, expert) for expert in (1, 2, 3))
    assert opened.region[opened.places[0] + 2 * (SIZE + PAGE)] == 0


def test_what_fits_never_is_an_error(opened: Opened) -> None:
    with pytest.raises(EngineFailed, match=r"needs 32\.0 KiB more of weights, and 24\.0 KiB of 24\.0 KiB are free"):
        opened.need(0, 0, 1, 2, 3)


def test_layers_may_have_different_numbers_of_matrices(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"".join(bytes([page]) * PAGE for page in range(3)))
    stacks = (Stack("a", 0, 0, 0, PAGE, 1), Stack("b", 0, 0, PAGE, PAGE, 1), Stack("c", 1, 0, 2 * PAGE, PAGE, 1))
    region = mmap.mmap(-1, 6 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    units = Units((0, 1), 1, stacks, routed=False)
    places = [0, 2 * PAGE, 4 * PAGE]

    def move(source: int, target: int, length: int) -> bool:
        return False

    weights = StreamedWeights(units, [path], region, places, 4 * PAGE, Fixed(), lambda: False, move, ThreadedReader)
    for index in (0, 1, 0):
        weights.need(index, np.ones(1, np.int64))
        assert weights.wait()
    assert [region[place] for place in places] == [0, 1, 0]
    weights.need(1, np.ones(1, np.int64))
    assert weights.wait()
    assert [region[place] for place in places] == [0, 0, 2]
    weights.close()


class TestExpect:
    def test_expected_units_are_read_ahead(self, opened: Opened) -> None:
        opened.weights.expect(1, [2])
        opened.need(1, 2)
        assert opened.has(1, 2)
        use = opened.weights.use
        assert (use.chosen, use.ahead_used, use.ahead_in_vain, use.bytes_read) == (1, 1, 0, PAGE)

    def test_what_is_read_before_it_is_chosen_is_in_memory_then(self, opened: Opened) -> None:
        opened.weights.expect(1, [2, 3])
        assert opened.weights._reader.wait([EXPERTS + 2, EXPERTS + 3], lambda: False)
        opened.need(1, 2)
        use = opened.weights.use
        assert (use.chosen, use.hits, use.ahead_used, use.ahead_in_vain) == (1, 1, 1, 1)

    def test_they_take_no_room_from_what_is_needed_now(self, opened: Opened) -> None:
        opened.weights.need(0, np.array([1, 1, 0, 0]))
        opened.weights.expect(1, [0, 1, 2])
        assert opened.weights.wait()
        assert opened.has(0, 0) and opened.has(0, 1)
        assert opened.weights.held == 3 * ONE

    def test_a_guess_that_is_cancelled_gives_its_memory_away(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened.need(0, 1, 2, 3)
        monkeypatch.setattr(opened.weights._reader, "ask", lambda *_, **__: None)  # nothing is ever begun
        monkeypatch.setattr(opened.weights._reader, "cancel", lambda units: set(units))
        opened.need(0, 1)
        opened.weights.expect(1, [1])
        place = opened.places[1] + SIZE + PAGE
        assert opened.moved == 1 and any(opened.region[place : place + SIZE])
        opened.need(1)
        assert not any(opened.region[place : place + SIZE])
        assert opened.weights.held == 2 * ONE

    def test_a_wrong_guess_keeps_the_memory_within_its_bound(self, opened: Opened) -> None:
        opened.weights.expect(1, [0, 1])
        opened.need(1, 2, 3)
        assert opened.has(1, 2) and opened.has(1, 3)
        assert opened.weights.held <= 3 * ONE


def test_a_stop_ends_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadedReader, "_work", lambda self: None)  # nothing is ever read
    opened = Opened(tmp_path, 3 * ONE)
    opened.stopped = True
    opened.weights.need(0, np.array([1, 0, 0, 0]))
    assert not opened.weights.wait()
    opened.weights.close()


def test_a_unit_that_could_not_be_read_is_never_used(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reader.os, "preadv", fails)
    opened.weights.expect(1, [2])
    for _ in range(2):  # the read has ended before the unit is needed, and a pass may follow
        with pytest.raises(DiskFailed):
            opened.weights._reader.wait([EXPERTS + 2], lambda: False)
        with pytest.raises(DiskFailed):
            opened.need(1, 2)


def test_a_stop_ends_the_waiting_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadedReader, "_work", lambda self: None)  # nothing is ever read
    opened = Opened(tmp_path, 3 * ONE)
    opened.weights.need(0, np.array([0, 1, 1, 1]))
    opened.stopped = True
    opened.weights.need(1, np.array([1, 0, 0, 0]))
    assert not opened.weights.wait()
    opened.weights.close()


def test_a_pass_with_large_buffers_drops_the_units_of_least_worth(opened: Opened) -> None:
    opened.policy.worths[:] = [5, 1, 2, 9, 0, 0, 0, 0]
    opened.need(0, 0, 1, 3)
    opened.weights.begin(2 * ONE)
    assert opened.weights.held == 2 * ONE
    assert opened.has(0, 0) and opened.has(0, 3) and not opened.has(0, 1)
    opened.weights.begin(3 * ONE)
    assert opened.weights.held == 2 * ONE
    opened.need(0, 1)
    assert opened.weights.held == 3 * ONE
