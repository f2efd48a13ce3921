"""Which of two readers reads what."""

from collections.abc import Callable, Collection, Sequence

import pytest

from runtime.from_disk.by_size import MUCH, BySize
from runtime.from_disk.reader import PAGE, Span


class Asked:
    """A reader that notes what it is asked for, and reads nothing."""

    def __init__(self) -> None:
        self.reading: set[int] = set()
        self.hurried: set[int] = set()
        self.is_open, self.stopped = True, False

    def ask(self, units: Sequence[tuple[int, Sequence[Span]]], *, now: bool) -> None:
        self.reading |= {unit for unit, _ in units}

    def hurry(self, units: Collection[int]) -> None:
        self.hurried |= self.reading & set(units)

    def cancel(self, units: Collection[int]) -> set[int]:
        cancelled = self.reading & set(units)
        self.reading -= cancelled
        return cancelled

    def look(self) -> None:
        self.reading.clear()

    def wait(self, units: Collection[int], stop: Callable[[], bool]) -> bool:
        return not (stop() and self.reading & set(units))

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def readers() -> tuple[Asked, Asked, BySize]:
    little, much = Asked(), Asked()
    both = BySize(little, much)
    both.ask([(1, [span(PAGE)]), (2, [span(MUCH - PAGE)])], now=True)
    both.ask([(3, [span(PAGE)]), (4, [span(MUCH)])], now=False)
    return little, much, both


def span(length: int) -> Span:
    return Span(0, 0, 0, length, length)


def test_what_is_more_than_the_bound_at_once_is_read_by_the_other(readers: tuple[Asked, Asked, BySize]) -> None:
    little, much, both = readers
    assert (little.reading, much.reading, both.reading) == ({1, 2}, {3, 4}, {1, 2, 3, 4})


def test_both_are_told_what_changes(readers: tuple[Asked, Asked, BySize]) -> None:
    little, much, both = readers
    both.hurry({2, 3})
    assert (little.hurried, much.hurried) == ({2}, {3})
    assert both.cancel({1, 4, 9}) == {1, 4}
    assert both.reading == {2, 3}
    both.look()
    assert both.reading == set()
    both.close()
    assert not little.is_open and not much.is_open


@pytest.mark.parametrize("unit", [1, 4])
def test_waiting_is_for_both(readers: tuple[Asked, Asked, BySize], unit: int) -> None:
    both = readers[2]
    assert both.wait({unit}, lambda: False)
    assert not both.wait({unit}, lambda: True)
