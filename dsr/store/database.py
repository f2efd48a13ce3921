"""An SQLite file of ours that several processes may use at once, brought up to date when it is opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.base.errors import DsrError, Incompatible, VerificationFailed

_WAIT_SECONDS = 10.0  # for another process that is writing

# The history of a file's layout. Only ever append; `PRAGMA user_version` counts how many have been applied.
Migrations = Sequence[Callable[[sqlite3.Connection], None]]


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, in words for errors: "conversations"; and how to do without it: "chat with --no-log"."""

    name: str
    without: str


class Database:
    """The file at `path`, made if it is missing.

    Everything raises DsrError when the file cannot be read or written (no permission, disk full, locked),
    VerificationFailed when it is damaged or something else, Incompatible when a newer dsr wrote it.
    """

    def __init__(self, path: Path, content: Content, migrations: Migrations) -> None:
        self.path = path
        self._content, self._migrations = content, migrations
        with self.errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self.connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block or nothing."""
        with self.errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What SQLite and the disk say, in our words. A row that cannot be read is a damaged file."""
        name, without = self._content.name, self._content.without
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise DsrError(
                f"the {name} in {self.path} cannot be used: {error}",
                hint=f"check the disk and its permissions, or {without}",
            ) from error
        except (sqlite3.Error, ValueError, RecursionError) as error:
            raise VerificationFailed(
                f"{self.path} is damaged, or is not a file of {name}: {error}",
                hint=f"move it away and dsr begins a new one: mv {self.path} {self.path}.broken",
            ) from error

    def _prepare(self) -> None:
        database, newest = self.connection, len(self._migrations)
        version = self._version()
        if version < newest:
            # Refused while another process opens the file for the first time too; then that one does it.
            try:
                database.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
            with self.writing():
                # Another process may have been faster.
                for number in range(self._version(), newest):
                    self._migrations[number](database)
                    database.execute(f"PRAGMA user_version = {number + 1}")
        elif version > newest:
            raise Incompatible(
                f"{self.path} was written by a newer dsr (layout {version}, this one knows {newest})",
                hint=f"update dsr, or {self._content.without}",
            )
        database.execute("PRAGMA foreign_keys = ON")

    def _version(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])
