import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.base.errors import DiskFailed, WeightsLost
from runtime.from_disk import reader
from runtime.from_disk.reader import PAGE, Reader, ReadFile, Span


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"".join(bytes([page]) * PAGE for page in range(10)))
    return path


@pytest.fixture
def memory() -> Iterator[memoryview]:
    region = mmap.mmap(-1, 16 * PAGE)
    view = memoryview(region)
    yield view
    view.release()
    region.close()


def never() -> bool:
    return False


def span(page: int, place: int, pages: int = 1) -> Span:
    return Span(0, page * PAGE, place * PAGE, pages * PAGE, pages * PAGE)


def test_spans_come_to_their_places(file: Path, memory: memoryview) -> None:
    opened = ReadFile(file)
    reading = Reader([opened], memory)
    reading.ask(0, [span(3, 1), span(7, 5)], now=True)
    reading.ask(1, [span(9, 0)], now=False)
    assert reading.wait({0, 1}, never)
    assert [memory[page * PAGE] for page in (0, 1, 5, 6)] == [9, 3, 7, 0]
    assert reading.is_read(0) and reading.is_read(1)
    reading.close()
    opened.close()


def test_the_end_of_a_file_within_a_page_is_read(tmp_path: Path, memory: memoryview) -> None:
    (tmp_path / "short").write_bytes(b"x" * (PAGE + 10))
    opened = ReadFile(tmp_path / "short")
    opened.read(memory[: 2 * PAGE], Span(0, 0, 0, 2 * PAGE, PAGE + 10))
    assert memory[PAGE + 9] == ord("x") and memory[PAGE + 10] == 0
    opened.close()


def test_a_cut_file_is_told(file: Path, memory: memoryview) -> None:
    opened = ReadFile(file)
    reading = Reader([opened], memory)
    os.truncate(file, 4 * PAGE)
    reading.ask(0, [span(5, 0)], now=True)
    with pytest.raises(WeightsLost, match="was cut while the model was running"):
        reading.wait({0}, never)
    with pytest.raises(WeightsLost, match="changed while the model was running"):
        opened.check()
    reading.close()
    opened.close()


def test_a_failing_disk_is_told(file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reader.os, "preadv", fails)
    opened = ReadFile(file)
    reading = Reader([opened], memory)
    reading.ask(0, [span(5, 0)], now=True)
    with pytest.raises(DiskFailed, match="the disk failed to read it: Input/output error"):
        reading.wait({0}, never)
    reading.close()
    opened.close()


def test_an_unforeseen_error_of_a_thread_ends_the_waiting(
    file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise ValueError("unforeseen")

    monkeypatch.setattr(reader.os, "preadv", fails)
    opened = ReadFile(file)
    reading = Reader([opened], memory)
    reading.ask(0, [span(5, 0)], now=True)
    looks = iter([False] * 50)
    with pytest.raises(ValueError, match="unforeseen"):
        reading.wait({0}, lambda: next(looks, True))
    reading.close()
    opened.close()


def test_waiting_ends_when_a_stop_is_wanted(file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    held = mmap.mmap(-1, PAGE)  # a read that takes until it is let go
    going = [True]

    def slow(*_: object) -> int:
        while going[0]:
            pass
        return PAGE

    monkeypatch.setattr(reader.os, "preadv", slow)
    opened = ReadFile(file)
    reading = Reader([opened], memory)
    reading.ask(0, [span(5, 0)], now=True)
    assert not reading.wait({0}, lambda: True)
    going[0] = False
    assert reading.wait({0}, never)
    reading.close()
    opened.close()
    held.close()


class TestCancel:
    def test_what_waits_is_forgotten_and_what_was_begun_is_not(
        self, file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "_THREADS", 0)  # nothing is ever begun
        opened = ReadFile(file)
        reading = Reader([opened], memory)
        reading.ask(0, [span(1, 0)], now=True)
        reading.ask(1, [span(2, 1), span(3, 2)], now=False)
        reading.ask(2, [span(4, 3)], now=False)
        assert reading.cancel({0, 1}) == {1}
        assert reading.is_read(1) and not reading.is_read(0) and not reading.is_read(2)
        reading.hurry({2})
        assert reading.cancel({2}) == set()
        reading.close()
        opened.close()
