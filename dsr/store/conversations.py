"""Every kept conversation, in one SQLite file that several processes may use at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from dsr.store.database import Content, Database, Migrations
from runtime.base.errors import NotFound
from runtime.base.types import Message, Role, ToolCall

_CONTENT = Content("conversations", "chat with --no-log")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `stats` are the tokens, seconds, finish reason and so on that the caller stores.

    `calls`, `call_id` and `name` as in `Message`.
    """

    role: Role
    content: str
    thinking: str
    stats: Mapping[str, Any] | None
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""

    @classmethod
    def of(cls, message: Message, stats: Mapping[str, Any] | None = None) -> Turn:
        """A message as a turn."""
        return cls(message.role, message.content, message.thinking, stats, message.calls, message.call_id, message.name)

    @property
    def message(self) -> Message:
        """The turn as a prompt has it."""
        return Message(self.role, self.content, self.thinking, self.calls, self.call_id, self.name)


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation in a list. `title` is its first question; `started` is in UTC.

    `turns` counts messages, `questions` those of the user.
    """

    id: int
    started: datetime
    model: str
    title: str
    turns: int
    questions: int = 0


@dataclass(frozen=True, slots=True)
class StoredConversation:
    id: int
    started: datetime
    model: str
    system: str
    title: str
    turns: tuple[Turn, ...]


def _create(database: sqlite3.Connection) -> None:
    # AUTOINCREMENT: the number of a deleted conversation is never given to another one.
    database.execute(
        "CREATE TABLE conversations (id INTEGER PRIMARY KEY AUTOINCREMENT, started TEXT NOT NULL,"
        " model TEXT NOT NULL, system TEXT NOT NULL, title TEXT NOT NULL DEFAULT '')"
    )
    database.execute(
        "CREATE TABLE turns (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " conversation INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,"
        " role TEXT NOT NULL, content TEXT NOT NULL, thinking TEXT NOT NULL, stats TEXT)"
    )
    database.execute("CREATE INDEX turns_of_conversation ON turns (conversation)")


def _add_calls(database: sqlite3.Connection) -> None:
    database.execute("ALTER TABLE turns ADD COLUMN calls TEXT")  # JSON: [[id, name, arguments], ...]
    database.execute("ALTER TABLE turns ADD COLUMN call_id TEXT NOT NULL DEFAULT ''")
    database.execute("ALTER TABLE turns ADD COLUMN name TEXT NOT NULL DEFAULT ''")


MIGRATIONS: Migrations = (_create, _add_calls)

_SUMMARY = (
    "SELECT c.id, c.started, c.model, c.title, count(t.id), sum(t.role = 'user')"
    " FROM conversations c JOIN turns t ON t.conversation = c.id"
    " {where} GROUP BY c.id ORDER BY max(t.id) DESC LIMIT ?"
)
_COLUMNS = "role, content, thinking, stats, calls, call_id, name"
_ADD = f"INSERT INTO turns (conversation, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Conversations:
    """The file at `path`, made if it is missing. Close it, or use it in a `with` block.

    Raises as `Database` does. Conversations without a turn are not listed.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _CONTENT, MIGRATIONS)

    def __enter__(self) -> Conversations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def begin(self, model: str, system: str = "") -> int:
        """Start a conversation and return its id."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with self._database.writing() as database:
            row = database.execute(
                "INSERT INTO conversations (started, model, system) VALUES (?, ?, ?)",
                (started, _storable(model), _storable(system)),
            )
            return int(row.lastrowid or 0)

    def add(
        self, id: int, role: Role, content: str, thinking: str = "", stats: Mapping[str, Any] | None = None
    ) -> None:
        """Append a turn. Raises NotFound if the conversation was deleted."""
        self.add_message(id, Message(role, content, thinking), stats)

    def add_message(self, id: int, message: Message, stats: Mapping[str, Any] | None = None) -> None:
        """Append a message as a turn, calls and results of tools too. Raises NotFound."""
        self.extend(id, [Turn.of(message, stats)])

    def extend(self, id: int, turns: Iterable[Turn]) -> None:
        """Append all turns or none. Raises NotFound."""
        given = [*turns]
        rows = [(id, *_row(each.message, each.stats)) for each in given]
        asked = next((each.content for each in given if each.role == "user"), None)
        with self._database.writing() as database:
            self._require(id)
            database.executemany(_ADD, rows)
            if asked is not None:
                title = _title(_storable(asked))
                database.execute("UPDATE conversations SET title = ? WHERE id = ? AND title = ''", (title, id))

    def replace(self, id: int, model: str, system: str, turns: Iterable[Turn]) -> None:
        """Put other turns in the place of all, under a model and a system prompt. Raises NotFound."""
        rows = [(id, *_row(each.message, each.stats)) for each in turns]
        with self._database.writing() as database:
            self._require(id)
            changed = (_storable(model), _storable(system), id)
            database.execute("UPDATE conversations SET model = ?, system = ? WHERE id = ?", changed)
            database.execute("DELETE FROM turns WHERE conversation = ?", (id,))
            database.executemany(_ADD, rows)

    def rename(self, id: int, title: str) -> None:
        """Give a conversation another title. Raises NotFound."""
        with self._database.writing() as database:
            self._require(id)
            database.execute("UPDATE conversations SET title = ? WHERE id = ?", (_title(_storable(title)), id))

    def drop_last_question(self, id: int) -> None:
        """Delete the last question and what follows it, to answer it again. Does nothing without a question."""
        with self._database.writing() as database:
            last = "SELECT max(id) FROM turns WHERE conversation = ? AND role = 'user'"
            database.execute(f"DELETE FROM turns WHERE conversation = ? AND id >= ({last})", (id, id))

    def delete(self, id: int) -> None:
        """Delete a conversation. Raises NotFound."""
        with self._database.writing() as database:
            self._require(id)
            database.execute("DELETE FROM conversations WHERE id = ?", (id,))

    def __contains__(self, id: int) -> bool:
        with self._database.errors():
            row = self._database.connection.execute("SELECT 1 FROM conversations WHERE id = ?", (id,)).fetchone()
        return row is not None

    def get(self, id: int) -> StoredConversation:
        """One conversation with all its turns. Raises NotFound."""
        with self._database.errors():
            row = self._require(id)
            turns = self._database.connection.execute(
                f"SELECT {_COLUMNS} FROM turns WHERE conversation = ? ORDER BY id", (id,)
            ).fetchall()
            return StoredConversation(
                id=id,
                started=_moment(row[0]),
                model=_text(row[1]),
                system=_text(row[2]),
                title=_text(row[3]),
                turns=tuple(map(_turn, turns)),
            )

    def latest(self) -> StoredConversation | None:
        """The conversation with the latest message."""
        found = self.list(1)
        return self.get(found[0].id) if found else None

    def list(self, limit: int = -1) -> tuple[Summary, ...]:
        """The conversations last used, the latest first; -1 for all."""
        return self._summaries("", (limit,))

    def search(self, text: str, limit: int = -1) -> tuple[Summary, ...]:
        """The conversations with `text` in an answer, a question or the thinking; ignores case."""
        wanted = _storable(text).casefold()
        with self._database.errors():
            self._database.connection.create_function("mentions", 1, lambda said: wanted in str(said or "").casefold())
        matching = "SELECT conversation FROM turns WHERE mentions(content) OR mentions(thinking) OR mentions(calls)"
        return self._summaries(f"WHERE t.conversation IN ({matching})", (limit,))

    def _summaries(self, where: str, arguments: tuple[Any, ...]) -> tuple[Summary, ...]:
        with self._database.errors():
            rows = self._database.connection.execute(_SUMMARY.format(where=where), arguments).fetchall()
            return tuple(
                Summary(id, _moment(started), _text(model), _text(title), turns, asked)
                for id, started, model, title, turns, asked in rows
            )

    def _require(self, id: int) -> tuple[str, str, str, str]:
        query = "SELECT started, model, system, title FROM conversations WHERE id = ?"
        row: tuple[str, str, str, str] | None = self._database.connection.execute(query, (id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no conversation {id}", hint="to list them: dsr history")
        return row


def _row(message: Message, stats: Mapping[str, Any] | None) -> tuple[str | None, ...]:
    """The values of `_COLUMNS`."""
    calls = [[each.id, each.name, each.arguments] for each in message.calls]
    return (
        message.role,
        _storable(message.content),
        _storable(message.thinking),
        _stats(stats),
        json.dumps(calls) if calls else None,
        _storable(message.call_id),
        _storable(message.name),
    )


def _turn(row: tuple[Any, ...]) -> Turn:
    role, content, thinking, stats, calls, call_id, name = row
    if role not in get_args(Role):
        raise ValueError(f"{role!r} is not a role")
    found = None if stats is None else json.loads(_text(stats))
    if not isinstance(found, dict | None):
        raise ValueError("the statistics of a turn are not an object")
    called = [] if calls is None else json.loads(_text(calls))
    if not isinstance(called, list) or any(not isinstance(each, list) or len(each) != 3 for each in called):
        raise ValueError("the calls of a turn are not a list of calls")
    known = tuple(ToolCall(*map(_text, each)) for each in called)
    return Turn(role, _text(content), _text(thinking), found, known, _text(call_id), _text(name))


def _text(value: Any) -> str:
    """A text of the file; SQLite holds values of any type in any column."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _moment(value: Any) -> datetime:
    found = datetime.fromisoformat(_text(value))
    if not 1970 <= found.year < 9999:  # else the local time could be out of range
        raise ValueError(f"{value!r} is not the time of a conversation")
    return found


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: half characters, from a broken pipe or file name, become '?'."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _stats(stats: Mapping[str, Any] | None) -> str | None:
    return None if stats is None else json.dumps(dict(stats))


def _title(question: str) -> str:
    return " ".join(question.split())[:200]
