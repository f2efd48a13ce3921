import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.base.errors import DiskFailed, WeightsLost
from runtime.from_disk.reader import PAGE, ReadFile, Span
from runtime.llama import queued_reads
from runtime.llama.queued_reads import NoQueue, QueuedReader

PAGES = 40


class Opened:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "weights"
        self.path.write_bytes(b"".join(bytes([page]) * PAGE for page in range(PAGES)))
        self.file = ReadFile(self.path)
        self.region = mmap.mmap(-1, PAGES * PAGE)
        self.memory = memoryview(self.region)
        self.reader = QueuedReader([self.file], self.memory)

    def close(self) -> None:
        self.reader.close()
        self.memory.release()  # fails while anything still holds it
        self.file.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    try:
        made = Opened(tmp_path)
    except NoQueue as reason:
        pytest.skip(reason.message)
    yield made
    made.close()


def never() -> bool:
    return False


def span(page: int, place: int) -> Span:
    return Span(0, page * PAGE, place * PAGE, PAGE, PAGE)


def test_spans_come_to_their_places(opened: Opened) -> None:
    opened.reader.ask([(0, [span(3, 1), span(7, 5)])], now=True)
    opened.reader.ask([(1, [span(9, 0)])], now=False)
    assert opened.reader.wait({0, 1}, never)
    assert [opened.memory[page * PAGE] for page in (0, 1, 5, 6)] == [9, 3, 7, 0]
    assert opened.reader.reading == set()


def test_more_reads_than_may_be_in_flight_all_come(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_reads, "_DEPTH", 3)
    monkeypatch.setattr(queued_reads, "_GUESSES", 2)
    opened.reader.ask([(page, [span(page, page)]) for page in range(20)], now=False)
    opened.reader.ask([(page, [span(page, page)]) for page in range(20, PAGES)], now=True)
    assert opened.reader.wait(range(PAGES), never)
    assert [opened.memory[page * PAGE] for page in range(PAGES)] == list(range(PAGES))


def test_what_came_is_seen_without_waiting(opened: Opened) -> None:
    opened.reader.ask([(0, [span(3, 1)])], now=False)
    while opened.reader.reading:
        opened.reader.look()
    assert opened.memory[PAGE] == 3


def test_a_cut_file_is_told(opened: Opened) -> None:
    os.truncate(opened.path, 4 * PAGE)
    opened.reader.ask([(0, [span(5, 0)])], now=True)
    for _ in range(2):
        with pytest.raises(WeightsLost, match="was cut while the model was running"):
            opened.reader.wait({0}, never)


def test_a_read_that_the_system_refuses_is_told(opened: Opened) -> None:
    handle, opened.file._handle = opened.file.handle, 100_000
    opened.reader.ask([(0, [span(5, 0)])], now=True)
    opened.file._handle = handle
    with pytest.raises(DiskFailed, match="the disk failed to read it"):
        opened.reader.wait({0}, never)


def test_waiting_ends_when_a_stop_is_wanted(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened.reader, "_begin", lambda: None)
    opened.reader.ask([(0, [span(5, 0)])], now=True)
    looks = iter([False, True])
    assert not opened.reader.wait({0}, lambda: next(looks))


def test_guesses_that_were_not_begun_can_be_taken_back(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_reads, "_GUESSES", 0)
    opened.reader.ask([(0, [span(1, 0)])], now=True)
    opened.reader.ask([(1, [span(2, 1), span(3, 2)]), (2, [span(4, 3)])], now=False)
    assert opened.reader.cancel({0, 1}) == {1}
    opened.reader.hurry({2})
    assert opened.reader.cancel({2}) == set()
    assert opened.reader.wait({0, 2}, never)
    assert opened.memory[3 * PAGE] == 4 and opened.memory[PAGE] == 0


def test_a_file_that_is_not_direct_has_no_queue(opened: Opened) -> None:
    opened.file._ask_for_direct(False)
    with pytest.raises(NoQueue):
        QueuedReader([opened.file], opened.memory)
