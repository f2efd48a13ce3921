"""Caches of conversations on disk: which one is found, which ones go, and that none is believed blindly."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dsr.store.kept_states import Found, GivenUp, KeptStates, Unwritten, default_limit, stands_for
from dsr.store.state_file import Head, size_of
from runtime.base.events import Event, Notice
from runtime.base.lock import try_lock
from runtime.engine.backend import Checkpoint
from runtime.engine.kept_state import KeptState

MODEL, OTHER = "ab" * 32, "cd" * 32
FILE = tuple(range(1000))  # a long file, so to speak
KIB = 1 << 10


def kept(*tokens: int, size: int = 10, at: tuple[int, ...] = ()) -> KeptState:
    return KeptState(tokens, bytes(size), tuple(Checkpoint(length, 1, b"c") for length in at))


class Folder:
    """The store in a folder, with what it told."""

    def __init__(self, path: Path, limit: int | None = 1 << 20) -> None:
        self.path = path
        self.told: list[str] = []
        self.states = KeptStates(path, limit, self._hear)

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.told.append(event.text)

    def save(self, conversation: int, state: KeptState, identity: str = MODEL, *, cuts: bool = True) -> None:
        self.states.save(conversation, identity, state, cuts_anywhere=cuts, wanted=lambda: True)

    def find(self, *tokens: int, identity: str = MODEL, most: int = 10_000, cuts: bool = True) -> Found | None:
        return self.states.find(identity, tokens, most, cuts_anywhere=cuts)

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.path)) if self.path.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "kept")


def test_a_state_comes_back_in_another_process(folder: Folder) -> None:
    state = kept(*FILE, 7, size=300, at=(500, 900))
    folder.save(12, state)
    found = folder.find(*FILE, 7, 8)
    assert found == Found(folder.path / f"12.{MODEL[:16]}.state", MODEL, 1001, size_of(state))
    assert folder.states.load(found) == state
    assert (folder.names, folder.told) == ([f"12.{MODEL[:16]}.state"], [])
    assert folder.states.sizes() == {12: size_of(state)}


def test_nobody_else_may_read_it(folder: Folder) -> None:
    folder.save(1, kept(*FILE))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.path, *folder.path.iterdir())]
    assert [oct(mode) for mode in modes] == ["0o700", "0o600"]


def test_the_longest_common_beginning_is_found_whatever_the_conversation(folder: Folder) -> None:
    folder.save(1, kept(*FILE[:400], *[5] * 300))
    folder.save(2, kept(*FILE[:600], *[6] * 300))
    folder.save(3, kept(*[9] * 700))
    found = folder.find(*FILE)
    assert found is not None
    assert (found.path.name[0], found.length) == ("2", 600)
    assert folder.find(*[3] * 900) is None


def test_a_state_that_does_not_pay_is_not_found(folder: Folder) -> None:
    folder.save(1, kept(*FILE[:255]))
    assert folder.find(*FILE) is None
    folder.save(1, kept(*FILE[:300], *[5] * 900))
    found = folder.find(*FILE)
    assert found is not None and found.length == 300
    folder.save(1, kept(*FILE[:300], *[5] * 901))  # less than a quarter of it
    assert folder.find(*FILE) is None


def test_a_state_that_the_context_cannot_hold_is_not_found(folder: Folder) -> None:
    folder.save(1, kept(*FILE))
    assert folder.find(*FILE, 1, most=999) is None
    assert folder.find(*FILE, 1, most=1000) is not None


def test_a_model_that_cannot_go_back_anywhere_begins_at_a_checkpoint(folder: Folder) -> None:
    folder.save(1, kept(*FILE[:600], *[5] * 300, at=(100, 512, 900)), cuts=False)
    found = folder.find(*FILE, cuts=False)
    assert found is not None and found.length == 512
    folder.save(1, kept(*FILE[:600], *[5] * 300, at=(100, 900)), cuts=False)
    assert folder.find(*FILE, cuts=False) is None


def test_another_model_engine_or_option_never_gets_it(folder: Folder) -> None:
    folder.save(1, kept(*FILE))
    assert folder.find(*FILE, identity=OTHER) is None
    assert folder.states.is_of_another(1, OTHER)
    assert not folder.states.is_of_another(1, MODEL)
    assert not folder.states.is_of_another(2, OTHER)
    # Nor does it by another name.
    (folder.path / f"1.{MODEL[:16]}.state").rename(folder.path / f"1.{OTHER[:16]}.state")
    assert folder.find(*FILE, identity=OTHER) is None
    assert folder.names == []


def test_a_damaged_file_is_removed_and_told(folder: Folder) -> None:
    folder.save(1, kept(*FILE, size=300))
    path = folder.path / f"1.{MODEL[:16]}.state"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    found = folder.find(*FILE)
    assert found is not None
    assert folder.states.load(found) is None
    assert folder.names == []
    assert folder.told == [f"a cached conversation is read again: {path}: the checksum is wrong"]


def test_a_file_that_was_cut_is_removed_when_it_is_looked_at(folder: Folder) -> None:
    folder.save(1, kept(*FILE))
    path = folder.path / f"1.{MODEL[:16]}.state"
    os.truncate(path, 100)
    assert folder.find(*FILE) is None
    assert folder.names == []
    assert folder.told == [f"a cached conversation is read again: {path}: ends after 100 bytes"]


def test_a_file_that_is_gone_is_read_again(folder: Folder) -> None:
    folder.save(1, kept(*FILE))
    found = folder.find(*FILE)
    assert found is not None
    found.path.unlink()
    assert folder.states.load(found) is None
    assert folder.told == ["a cached conversation is read again: No such file or directory"]


def test_a_file_that_does_not_fit_into_memory_is_read_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save(1, kept(*FILE))
    found = folder.find(*FILE)
    assert found is not None

    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dsr.store.kept_states.read_state", refuse)
    assert folder.states.load(found) is None
    assert folder.told == ["a cached conversation is read again: there is not enough memory"]


def test_a_conversation_has_one_file(folder: Folder) -> None:
    folder.save(1, kept(*FILE[:300]))
    folder.save(1, kept(*FILE))
    assert folder.names == [f"1.{MODEL[:16]}.state"]
    folder.save(1, kept(*FILE), OTHER)
    assert folder.names == [f"1.{OTHER[:16]}.state"]


def test_the_second_question_about_a_file_needs_the_first_state_no_more(folder: Folder) -> None:
    folder.save(1, kept(*FILE, *[5] * 200))
    folder.save(2, kept(*FILE, *[6] * 200))
    assert folder.names == [f"2.{MODEL[:16]}.state"]
    folder.save(3, kept(*FILE, *[7] * 300))
    folder.save(4, kept(*FILE, *[8] * 200))
    assert folder.names == [f"3.{MODEL[:16]}.state", f"4.{MODEL[:16]}.state"]


def test_a_state_stands_for_another_only_as_far_as_it_can_go_back() -> None:
    old = Head((*FILE, *[5] * 100), (), 1)
    new = (*FILE, *[6] * 100)
    assert stands_for(Head(new, (), 1), old, cuts_anywhere=True)
    assert not stands_for(Head(new, (), 1), old, cuts_anywhere=False)
    assert stands_for(Head(new, ((1000, 1),), 1), old, cuts_anywhere=False)
    assert not stands_for(Head(new, ((800, 1),), 1), old, cuts_anywhere=False)


def test_the_least_recently_used_goes_when_the_limit_is_reached(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "kept", limit=15 * KIB)
    for number in (1, 2, 3):
        folder.save(number, kept(*[number] * 300, size=3 * KIB))
        os.utime(folder.path / f"{number}.{MODEL[:16]}.state", (number, number))
    assert folder.states.load(folder.find(*[1] * 400) or pytest.fail()) is not None  # used now
    folder.save(4, kept(*[4] * 300, size=3 * KIB))
    assert [name[0] for name in folder.names] == ["1", "3", "4"]


def test_a_state_larger_than_the_limit_is_not_written_and_costs_no_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "kept", limit=6 * KIB)
    folder.save(1, kept(*FILE))
    with pytest.raises(Unwritten) as caught:
        folder.save(2, kept(*FILE, size=6 * KIB))
    assert str(caught.value) == "its 9.97 KiB are more than the limit of 6.00 KiB"
    assert [name[0] for name in folder.names] == ["1"]


def test_the_default_limit() -> None:
    gib = 1 << 30
    assert default_limit(free=50 * gib, taken=0) == 5 * gib
    assert default_limit(free=48 * gib, taken=2 * gib) == 5 * gib
    assert default_limit(free=900 * gib, taken=0) == 20 * gib
    assert default_limit(free=0, taken=0) == 0


def test_writing_that_nobody_waits_for_leaves_what_was_there(folder: Folder) -> None:
    folder.save(1, kept(*FILE))
    before = (folder.path / f"1.{MODEL[:16]}.state").read_bytes()
    looks = iter((True, True, False))
    with pytest.raises(GivenUp):
        folder.states.save(1, MODEL, kept(*FILE, 1, 2), cuts_anywhere=True, wanted=lambda: next(looks))
    assert folder.names == [f"1.{MODEL[:16]}.state"]
    assert (folder.path / f"1.{MODEL[:16]}.state").read_bytes() == before


def test_two_processes_do_not_write_at_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.path.mkdir()
    monkeypatch.setattr("dsr.store.kept_states._WAIT_SECONDS", 0.0)
    other = try_lock(folder.path / "lock")
    assert other is not None
    with pytest.raises(Unwritten) as caught:
        folder.save(1, kept(*FILE))
    assert str(caught.value) == "another dsr is writing there"
    other.release()
    folder.save(1, kept(*FILE))


def test_what_kills_left_of_any_conversation_goes_with_the_next_write(folder: Folder) -> None:
    folder.path.mkdir()
    (folder.path / ".8.0123456789abcdef.state.01234567").write_bytes(b"half")
    folder.save(9, kept(*FILE))
    assert folder.names == [f"9.{MODEL[:16]}.state"]


def test_a_deleted_conversation_takes_its_state_with_it(folder: Folder) -> None:
    folder.save(1, kept(*[1] * 300))
    folder.save(12, kept(*[2] * 300))
    folder.states.delete(1)
    folder.states.delete(99)
    assert folder.names == [f"12.{MODEL[:16]}.state"]
    KeptStates(folder.path / "missing").delete(1)


def test_a_deleted_conversation_takes_a_state_with_it_that_another_process_is_writing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_ends(path: Path, *, wait: float) -> None:
        folder.path.joinpath(f"2.{MODEL[:16]}.state").write_bytes(b"written until now")

    folder.save(1, kept(*FILE))
    monkeypatch.setattr("dsr.store.kept_states.try_lock", other_ends)
    folder.states.delete(2)
    assert folder.names == [f"1.{MODEL[:16]}.state"]


def test_deleting_where_nothing_was_ever_written_makes_no_folder(folder: Folder) -> None:
    folder.states.delete(1)
    assert not folder.path.exists()
