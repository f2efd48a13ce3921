"""What a process read is there for the next one, costs no answer anything, and is never needed."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dsr.chat.disk_cache import CachedModel, DiskCache, worth_writing
from dsr.store.kept_states import KeptStates
from dsr.ui.console import Console
from runtime.base.common_prefix import common_length
from runtime.base.events import Event, Notice
from runtime.engine.backend import Checkpoint
from runtime.engine.kept_state import KeptState
from runtime.gguf.reader import read_card
from tests.dsr.chat.chatting import open_model

MODEL = CachedModel("ab" * 32, context=4000, cuts_anywhere=True)
FILE = tuple(range(1000))


class FakeEngine:
    """Holds what it `reads` or adopts, as far as its `states` go."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.held: list[tuple[int, ...]] = []
        self.refuses = refuses
        self.adopted: list[int] = []

    def read(self, *tokens: int) -> None:
        self.held.append(tokens)

    def export(self, tokens: Sequence[int]) -> KeptState | None:
        longest = max((common_length(each, tokens) for each in self.held), default=0)
        return KeptState(tuple(tokens[:longest]), repr(longest).encode()) if longest else None

    def adopt(self, kept: KeptState) -> bool:
        self.adopted.append(len(kept.tokens))
        if not self.refuses:
            self.held.append(kept.tokens)
        return not self.refuses


class Process:
    """One process of dsr, with what it told."""

    def __init__(self, folder: Path, model: CachedModel = MODEL, *, refuses: bool = False) -> None:
        self.told: list[str] = []
        self.engine = FakeEngine(refuses=refuses)
        self.states = KeptStates(folder, 1 << 20, self._hear)
        self.cache = DiskCache(self.states, Console(), self._hear)
        self._model = model

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.told.append(event.text)

    def ask(self, conversation: int, prompt: Sequence[int], answer: Sequence[int], *, ends: bool) -> int:
        """Read the prompt and draw the answer; returns how much was adopted before."""
        before = len(self.engine.adopted)
        self.cache.adopt(self.engine, self._model, prompt)
        self.engine.read(*prompt, *answer)
        self.cache.keep(self.engine, self._model, (*prompt, *answer), conversation, ends=ends)
        return sum(self.engine.adopted[before:])


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_when_a_state_is_written() -> None:
    assert not worth_writing(255, 0, ends=True)
    assert worth_writing(256, 0, ends=False)
    # While the conversation goes on: when it grew by a quarter.
    assert not worth_writing(1249, 1000, ends=False)
    assert worth_writing(1250, 1000, ends=False)
    # At its end: the rest, unless it is read as soon as written.
    assert not worth_writing(1063, 1000, ends=True)
    assert worth_writing(1064, 1000, ends=True)


def test_all_files_of_a_conversation_together_are_at_most_five_times_the_last() -> None:
    written, on_disk = [], 0
    for length in range(300, 30_000, 37):
        if worth_writing(length, on_disk, ends=False):
            written.append(length)
            on_disk = length
    assert sum(written) < 5 * 30_000
    assert len(written) < 22


def test_the_next_process_begins_where_the_last_one_ended(tmp_path: Path) -> None:
    first = Process(tmp_path)
    with first.cache:
        first.ask(1, FILE, (5, 6), ends=True)
    second = Process(tmp_path)
    with second.cache:
        assert second.ask(1, (*FILE, 5, 6, 7), (8,), ends=True) == 1002
        # The engine holds it now: nothing is loaded twice.
        assert second.ask(1, (*FILE, 5, 6, 7, 8, 9), (10,), ends=True) == 0


def test_another_question_about_the_same_file_begins_after_the_file(tmp_path: Path) -> None:
    for number, question in enumerate(((1, 1), (2, 2), (3, 3))):
        process = Process(tmp_path)
        with process.cache:
            adopted = process.ask(number, (*FILE, *question), (), ends=True)
        assert bool(adopted) is bool(number)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_conversation_that_goes_on_is_written_when_it_grew(tmp_path: Path) -> None:
    process = Process(tmp_path)
    lengths = []
    with process.cache:
        for end in (500, 600, 700, 1000):
            process.ask(1, FILE[: end - 1], FILE[end - 1 : end], ends=False)
            process.cache._wait()
            found = process.states.find(MODEL.identity, (*FILE, 1), 4000, cuts_anywhere=True)
            assert found is not None
            lengths.append(found.length)
    assert lengths == [500, 500, 700, 1000]


def test_a_state_that_holds_more_counts_by_what_it_spares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cannot go back anywhere holds the thought too, and a checkpoint before it."""
    model = CachedModel(MODEL.identity, 4000, cuts_anywhere=False)
    for mark, written in ((255, 0), (600, 1)):
        folder = tmp_path / str(mark)
        process = Process(folder, model)
        kept = KeptState((*FILE, *[5] * 900), b"s", (Checkpoint(mark, 1, b"c"),))
        monkeypatch.setattr(process.engine, "export", lambda tokens, kept=kept: kept)
        with process.cache:
            process.ask(1, FILE, (7,), ends=True)
        assert len(list(folder.glob("*"))) == written


def test_without_an_identity_nothing_is_kept(tmp_path: Path) -> None:
    process = Process(tmp_path / "kept", CachedModel("", 4000, cuts_anywhere=True))
    with process.cache:
        process.ask(1, FILE, (1,), ends=True)
    assert not (tmp_path / "kept").exists()


def test_a_model_whose_state_cannot_be_taken_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(tmp_path / "kept")
    monkeypatch.setattr(process.engine, "export", lambda tokens: None)
    with process.cache:
        process.ask(1, FILE, (1,), ends=True)
    assert not (tmp_path / "kept").exists()


def test_a_state_that_the_engine_refuses_is_removed(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path, refuses=True)
    with first.cache:
        first.ask(1, FILE, (1,), ends=True)
    with second.cache:
        second.cache.adopt(second.engine, MODEL, (*FILE, 1, 2))
    assert list(tmp_path.iterdir()) == []
    assert second.told == ["a cached conversation is read again: the engine refused its state"]


def test_a_conversation_with_the_cache_of_another_model_is_told(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path, CachedModel("cd" * 32, 4000, cuts_anywhere=True))
    with first.cache:
        first.ask(1, FILE, (1,), ends=True)
    with second.cache:
        second.cache.adopt(second.engine, second._model, (*FILE, 1, 2), 1)
        second.cache.adopt(second.engine, second._model, (*[3] * 400, 1, 2), 2)
    assert second.engine.adopted == []
    assert second.told == ["the conversation is read again: its cache is of another model, engine or option"]


def test_a_state_that_memory_cannot_hold_twice_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(tmp_path, CachedModel(MODEL.identity, 4000, cuts_anywhere=True, token_bytes=1 << 50))
    with process.cache:
        process.ask(1, FILE, (1,), ends=True)
    assert len(process.told) == 1
    assert process.told[0].startswith("the cache of the conversation is not used: it takes 2099249152.0 GiB, and ")
    assert list(tmp_path.iterdir()) == []


def test_another_engine_holds_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.cache:
        process.ask(1, FILE, (1,), ends=True)
        process.engine = FakeEngine()
        assert process.ask(1, (*FILE, 1, 2), (), ends=False) == 1001


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    said: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("dsr.store.kept_states.write_stream", refuse)
    process = Process(tmp_path)
    with process.cache:
        for end in (400, 600, 1000):
            process.ask(1, FILE[:end], (7,), ends=False)
    assert lines(capsys) == [f"the cache of this conversation is not kept: {said}"]


def test_a_state_without_room_in_the_limit_is_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = Process(tmp_path)
    process.cache = DiskCache(KeptStates(tmp_path, 1024), Console(), process._hear)
    with process.cache:
        process.ask(1, FILE, (7,), ends=True)
    limit = "its 3.98 KiB are more than the limit of 1.00 KiB"
    assert process.told == [f"the cache of this conversation is not kept: {limit}"]
    assert lines(capsys) == []


class SlowDisk:
    """A disk that takes no file until it is `released`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, states: KeptStates) -> None:
        self.released = threading.Event()
        self.began = threading.Event()
        self.wanted: list[bool] = []
        save = states.save

        def slow(*arguments: object, wanted: Callable[[], bool], **more: object) -> None:
            self.began.set()
            while not self.released.wait(0.005) and wanted():
                pass
            self.wanted.append(wanted())
            save(*arguments, wanted=wanted, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(states, "save", slow)


def test_an_answer_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(tmp_path)
    disk = SlowDisk(monkeypatch, process.states)
    with process.cache:
        process.ask(1, FILE[:400], (), ends=False)
        process.ask(1, FILE[:600], (), ends=False)  # is not written: the disk is busy
        assert disk.began.wait(10)
        process.ask(1, FILE, (), ends=True)  # takes the place of the unfinished one
        disk.released.set()
    assert disk.wanted == [False, True]
    [left] = tmp_path.iterdir()
    assert left.stat().st_size > 4 * 1000


def test_a_long_wait_is_told_and_ctrl_c_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(tmp_path)
    disk = SlowDisk(monkeypatch, process.states)
    monkeypatch.setattr("dsr.chat.disk_cache._SECONDS", 0.01)
    wait = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if timeout is None:
            raise KeyboardInterrupt
        wait(self, timeout)

    with process.cache:
        process.ask(1, FILE, (), ends=True)
        assert disk.began.wait(10)
        monkeypatch.setattr(threading.Thread, "join", interrupted)
    monkeypatch.undo()
    assert lines(capsys) == ["writing the cache of the conversation to the disk; Ctrl-C leaves without it"]
    assert list(tmp_path.glob("*.state")) == []


def test_after_ctrl_c_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(tmp_path)
    disk = SlowDisk(monkeypatch, process.states)
    with pytest.raises(KeyboardInterrupt), process.cache:
        process.ask(1, FILE, (), ends=True)
        raise KeyboardInterrupt
    assert disk.wanted == [False]
    assert list(tmp_path.glob("*.state")) == []


def test_a_loaded_state_of_a_model_with_windows_cannot_be_cut(hybrid_path: Callable[[str], Path]) -> None:
    """A full cache goes back anywhere, but a state of it has only the last window."""
    for kind, cuts in (("gemma3", False), ("", True)):
        loaded = open_model("x", card=read_card(hybrid_path(kind))) if kind else open_model("x")
        assert loaded.backend.cuts_anywhere
        assert CachedModel.of(loaded).cuts_anywhere is cuts
