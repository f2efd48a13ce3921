from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dsr.store import conversations
from dsr.store.conversations import MIGRATIONS, Conversations, Turn
from runtime.base.errors import DsrError, Incompatible, NotFound, VerificationFailed
from runtime.base.types import Message, ToolCall


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "conversations.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Conversations]:
    with Conversations(path) as store:
        yield store


def told(store: Conversations, *questions: str, model: str = "nano") -> int:
    id = store.begin(model)
    for question in questions:
        store.add(id, "user", question)
        store.add(id, "assistant", f"answer to {question}")
    return id


def test_a_conversation_comes_back_as_it_was(store: Conversations) -> None:
    id = store.begin("deepseek-r1:7b", "Be brief.")
    store.add(id, "user", "  1 + 1?\n")
    store.add(id, "assistant", "2\x1b[0m\x00", "1+1=2", {"tokens": 3})
    kept = store.get(id)
    assert (kept.id, kept.model, kept.system, kept.title) == (id, "deepseek-r1:7b", "Be brief.", "1 + 1?")
    assert kept.started.tzinfo is not None
    assert kept.turns == (
        Turn("user", "  1 + 1?\n", "", None),
        Turn("assistant", "2\x1b[0m\x00", "1+1=2", {"tokens": 3}),
    )


def test_the_list_begins_with_what_was_used_last(store: Conversations) -> None:
    first, second, third = told(store, "one"), told(store, "two"), told(store, "three")
    store.add(first, "user", "one more")
    assert [(one.id, one.title, one.turns) for one in store.list()] == [
        (first, "one", 3),
        (third, "three", 2),
        (second, "two", 2),
    ]
    assert [one.id for one in store.list(2)] == [first, third]
    latest = store.latest()
    assert latest is not None and latest.id == first


def test_a_conversation_without_a_word_is_not_listed(store: Conversations) -> None:
    store.begin("nano")
    assert store.list() == ()
    assert store.latest() is None


def test_dropping_the_last_question_makes_room_for_another_answer(store: Conversations) -> None:
    id, other = told(store, "q"), told(store, "x")
    store.add(id, "user", "r")
    store.drop_last_question(id)
    assert [turn.content for turn in store.get(id).turns][::2] == ["q"]
    store.drop_last_question(id)
    store.drop_last_question(id)
    assert store.get(id).turns == ()
    assert len(store.get(other).turns) == 2


def test_search_finds_what_was_said_or_thought_in_any_case(store: Conversations) -> None:
    a, b = told(store, "Der MÜLLER kommt"), told(store, "100%_sure")
    c = told(store, "plain")
    store.add(c, "assistant", "yes", "the miller")
    assert [one.id for one in store.search("müller")] == [a]
    assert [one.id for one in store.search("Miller")] == [c]
    assert [one.id for one in store.search("%_")] == [b]
    assert [one.id for one in store.search("answer")] == [c, b, a]
    assert [one.turns for one in store.search("plain")] == [3]
    assert len(store.search("answer", 2)) == 2
    assert store.search("nowhere") == ()


def test_a_deleted_conversation_is_gone_with_its_turns_and_its_number(store: Conversations, path: Path) -> None:
    id = told(store, "secret")
    store.delete(id)
    assert store.list() == ()
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM turns").fetchone() == (0,)
    raw.close()
    assert told(store, "new") == id + 1


def test_an_unknown_conversation_is_not_found(store: Conversations) -> None:
    for act in (store.get, store.delete, lambda id: store.add(id, "user", "x")):
        with pytest.raises(NotFound, match="no conversation 7"):
            act(7)


def test_half_characters_are_kept_as_question_marks(store: Conversations) -> None:
    id = told(store, "bad \udcff byte")
    assert store.get(id).title == "bad ? byte"
    assert store.search("\udcff")[0].id == id


def test_only_the_user_may_read_the_file(store: Conversations, path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_it_stays_after_closing(path: Path) -> None:
    with Conversations(path) as store:
        id = told(store, "q")
    with Conversations(path) as store:
        assert store.get(id).title == "q"


@pytest.mark.parametrize("content", [b"this is no database, but long enough to be one" * 30, b"SQLite format 3\0" * 99])
def test_a_damaged_file_is_named_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(VerificationFailed, match=r"conversations\.sqlite is damaged") as caught:
        Conversations(path)
    assert caught.value.hint is not None and "mv " in caught.value.hint
    assert path.read_bytes() == content


def test_a_page_damaged_later_is_noticed_when_it_is_read(path: Path) -> None:
    with Conversations(path) as store:
        id = told(store, "q" * 20_000)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(VerificationFailed, match="is damaged"), Conversations(path) as store:
        store.get(id)


def test_a_file_of_a_newer_dsr_is_left_alone(path: Path) -> None:
    Conversations(path).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(Incompatible, match="newer dsr") as caught:
        Conversations(path)
    assert caught.value.hint is not None and "--no-log" in caught.value.hint


def test_a_full_disk_is_an_error_and_keeps_what_was_there(store: Conversations) -> None:
    id = told(store, "q")
    pages = store._database.connection.execute("PRAGMA page_count").fetchone()[0]
    store._database.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DsrError, match="full") as caught:
        store.add(id, "user", "x" * 100_000)
    assert caught.value.exit_code == 1
    assert len(store.get(id).turns) == 2


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DsrError, match="cannot be used") as caught:
        Conversations(tmp_path / "file" / "conversations.sqlite")
    assert caught.value.hint is not None and "--no-log" in caught.value.hint


def test_a_file_of_an_older_dsr_is_brought_up_to_date_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Conversations(path) as store:
        id = told(store, "q")
    later = (
        lambda database: database.execute("CREATE TABLE a (x)"),
        lambda database: database.execute("ALTER TABLE a RENAME TO b"),
    )
    monkeypatch.setattr(conversations, "MIGRATIONS", conversations.MIGRATIONS + later)
    for _ in range(2):
        with Conversations(path) as store:
            assert store._database.connection.execute("SELECT count(*) FROM b").fetchone() == (0,)
            assert store.get(id).title == "q"


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Conversations(path).close()

    def half(database: sqlite3.Connection) -> None:
        database.execute("CREATE TABLE a (x)")
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(conversations, "MIGRATIONS", (*conversations.MIGRATIONS, half))
        with pytest.raises(DsrError, match="disk I/O error"):
            Conversations(path)
    with Conversations(path) as store:
        assert store._database.connection.execute("SELECT name FROM sqlite_master WHERE name = 'a'").fetchone() is None


WRITER = """
import sys
from pathlib import Path
from dsr.store.conversations import Conversations
with Conversations(Path(sys.argv[1])) as store:
    id = store.begin("nano")
    for number in range(25):
        store.add(id, "user", f"{sys.argv[2]} {number}")
"""


def test_processes_that_start_at_once_do_not_disturb_each_other(path: Path) -> None:
    root = Path(__file__).parents[3]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)], cwd=root) for n in range(4)]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    with Conversations(path) as store:
        assert sorted(one.turns for one in store.list()) == [25, 25, 25, 25]
        for one in store.list():
            words = [turn.content.split() for turn in store.get(one.id).turns]
            assert [int(number) for _, number in words] == list(range(25))
            assert len({name for name, _ in words}) == 1


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("conversations", "started", "yesterday"),
        ("conversations", "started", b"\xff"),
        ("conversations", "started", "0001-01-01"),
        ("conversations", "model", b"\xff"),
        ("conversations", "title", b"\xff"),
        ("turns", "role", "robot"),
        ("turns", "content", b"\xff"),
        ("turns", "stats", "[" * 5000),
        ("turns", "stats", "[]"),
        ("turns", "stats", b"\xff"),
    ],
)
def test_a_damaged_row_is_an_error_that_names_the_file(tmp_path: Path, table: str, column: str, value: object) -> None:
    path = tmp_path / "c.sqlite"
    with Conversations(path) as store:
        told(store, "q")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE {table} SET {column} = ?", (value,))
    with Conversations(path) as store, pytest.raises(VerificationFailed, match="is damaged"):
        store.list()
        store.latest()


def test_replaced_turns_take_the_place_of_all_and_the_title_stays(tmp_path: Path) -> None:
    turns = (Turn("user", "new", "", None), Turn("assistant", "a", "t", {"n": 1}))
    with Conversations(tmp_path / "c.sqlite") as store:
        number = told(store, "first")
        store.rename(number, "kept")
        store.replace(number, "other", "be brief", turns)
        found = store.get(number)
    assert (found.model, found.system, found.title, found.turns) == ("other", "be brief", "kept", turns)


def test_a_conversation_that_is_gone_cannot_be_replaced(tmp_path: Path) -> None:
    with Conversations(tmp_path / "c.sqlite") as store, pytest.raises(NotFound):
        store.replace(7, "nano", "", [Turn("user", "q", "", None)])


def test_a_file_of_an_earlier_layout_gets_room_for_calls(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as database:
        MIGRATIONS[0](database)
        database.execute("PRAGMA user_version = 1")
        database.execute("INSERT INTO conversations (started, model, system) VALUES ('2026-01-01T00:00:00', 'm', '')")
        database.execute("INSERT INTO turns (conversation, role, content, thinking) VALUES (1, 'user', 'q', '')")
    database.close()
    called = Message("assistant", "", calls=(ToolCall("1", "now", "{}"),))
    result = Message("tool", "12:00", call_id="1", name="now")
    with Conversations(path) as store:
        store.add_message(1, called)
        store.add_message(1, result, {"state": "done"})
        assert [turn.message for turn in store.get(1).turns] == [Message("user", "q"), called, result]
        assert [one.id for one in store.search("now")] == [1]
        assert store.search("None") == ()
