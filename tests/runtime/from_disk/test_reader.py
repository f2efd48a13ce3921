import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.base.errors import DiskFailed, WeightsLost
from runtime.from_disk import reader
from runtime.from_disk.reader import PAGE, ReadFile, Span, ThreadedReader


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
    reading = ThreadedReader([opened], memory)
    reading.ask([(0, [span(3, 1), span(7, 5)])], now=True)
    reading.ask([(1, [span(9, 0)])], now=False)
    assert reading.wait({0, 1}, never)
    assert [memory[page * PAGE] for page in (0, 1, 5, 6)] == [9, 3, 7, 0]
    assert reading.reading == set()
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
    reading = ThreadedReader([opened], memory)
    os.truncate(file, 4 * PAGE)
    reading.ask([(0, [span(5, 0)])], now=True)
    with pytest.raises(WeightsLost, match="was cut while the model was running"):
        reading.wait({0}, never)
    with pytest.raises(WeightsLost, match="changed while the model was running"):
        opened.check()
    reading.close()
    opened.close()


def test_a_failing_disk_is_told(file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    opened = ReadFile(file)
    monkeypatch.setattr(reader.os, "preadv", fails)
    reading = ThreadedReader([opened], memory)
    reading.ask([(0, [span(5, 0)])], now=True)
    with pytest.raises(DiskFailed, match="the disk failed to read it: Input/output error"):
        reading.wait({0}, never)
    reading.close()
    opened.close()


def test_an_unforeseen_error_of_a_thread_ends_the_waiting(
    file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise ValueError("unforeseen")

    opened = ReadFile(file)
    monkeypatch.setattr(reader.os, "preadv", fails)
    reading = ThreadedReader([opened], memory)
    reading.ask([(0, [span(5, 0)])], now=True)
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

    opened = ReadFile(file)
    monkeypatch.setattr(reader.os, "preadv", slow)
    reading = ThreadedReader([opened], memory)
    reading.ask([(0, [span(5, 0)])], now=True)
    assert not reading.wait({0}, lambda: True)
    going[0] = False
    assert reading.wait({0}, never)
    reading.close()
    opened.close()
    held.close()


def refuses_direct_reads(monkeypatch: pytest.MonkeyPatch, offset: int) -> list[bool]:
    """Of each read whether it was direct; direct ones fail as where a file system wants another alignment."""
    real, seen = os.preadv, []

    asked: dict[int, bool] = {}  # by handle; the file system of the tests may have no direct reads

    def ask(opened: ReadFile, wanted: bool) -> None:
        asked[opened._handle] = opened._direct = wanted

    def read(handle: int, parts: list[memoryview], place: int) -> int:
        direct = asked.get(handle, False)
        seen.append(direct)
        if direct and place >= offset:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(handle, parts, place)

    monkeypatch.setattr(reader.os, "preadv", read)
    monkeypatch.setattr(ReadFile, "_ask_for_direct", ask)
    return seen


@pytest.mark.parametrize(("offset", "reads"), [(0, [True, False, False]), (PAGE, [True, True, False])])
def test_a_file_system_that_refuses_direct_reads_is_read_through_the_cache(
    offset: int, reads: list[bool], file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`offset` 0: it refuses the read with which a file is opened; else one that comes later."""
    forgotten: list[tuple[int, int]] = []

    def advise(_: int, begin: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            forgotten.append((begin, length))

    monkeypatch.setattr(reader.os, "posix_fadvise", advise)
    seen = refuses_direct_reads(monkeypatch, offset)
    opened = ReadFile(file)
    assert opened.direct == (offset > 0)
    assert opened.read(memory[:PAGE], span(3, 0)) and memory[0] == 3
    assert seen == reads and not opened.direct and forgotten == [(3 * PAGE, PAGE)]
    opened.close()


def test_reading_is_direct_where_the_file_system_can(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = refuses_direct_reads(monkeypatch, 1 << 40)
    opened = ReadFile(file)
    assert opened.direct and seen == [True]
    opened.close()


def test_direct_reads_are_asked_of_the_system_and_given_up(file: Path) -> None:
    if not hasattr(os, "O_DIRECT"):
        pytest.skip("this system has no direct reads")
    opened = ReadFile(file)
    if not opened.direct:
        pytest.skip("the file system of the tests has no direct reads")
    assert fcntl.fcntl(opened._handle, fcntl.F_GETFL) & os.O_DIRECT
    opened._ask_for_direct(False)
    assert not opened.direct and not fcntl.fcntl(opened._handle, fcntl.F_GETFL) & os.O_DIRECT
    opened.close()


def test_what_is_read_for_the_cache_stays_there(
    file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advise(*_: int) -> None:
        raise AssertionError("the cache must not forget it")

    monkeypatch.setattr(reader.os, "posix_fadvise", advise)
    opened = ReadFile(file, into_cache=True)
    assert not opened.direct and opened.read(memory[:PAGE], span(3, 0))
    opened.close()


def test_the_end_of_reading_comes_behind_a_piece_and_not_behind_a_whole_part(
    file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_PIECE", PAGE)
    opened = ReadFile(file)
    looks = iter([True, True, False])
    assert not opened.read(memory[: 8 * PAGE], span(1, 0, pages=8), lambda: next(looks))
    assert [memory[page * PAGE] for page in range(4)] == [1, 2, 0, 0]
    assert opened.read(memory[: 8 * PAGE], span(1, 0, pages=8)) and memory[7 * PAGE] == 8
    opened.close()


class TestCancel:
    def test_what_waits_is_forgotten_and_what_was_begun_is_not(
        self, file: Path, memory: memoryview, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "_THREADS", 0)  # nothing is ever begun
        opened = ReadFile(file)
        reading = ThreadedReader([opened], memory)
        reading.ask([(0, [span(1, 0)])], now=True)
        reading.ask([(1, [span(2, 1), span(3, 2)])], now=False)
        reading.ask([(2, [span(4, 3)])], now=False)
        assert reading.cancel({0, 1}) == {1}
        assert reading.reading == {0, 2}
        reading.hurry({2})
        assert reading.cancel({2}) == set()
        reading.close()
        opened.close()
