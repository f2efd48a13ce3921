"""The tools that a person allowed for good, in one JSON file of the settings folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from runtime.base.errors import DsrError, NotFound, VerificationFailed
from runtime.base.files import write_stream
from runtime.base.texts import json_text, read_text

_SCHEMA = "dsr.allowed-tools/1"


@dataclass(frozen=True, slots=True)
class Consent:
    """`name` is the tool for people and models, `tool` its name at the server. `identity` is a digest of the server's
    command or address, `server` its text; `since` is a date."""

    identity: str
    tool: str
    name: str
    server: str
    since: str

    @classmethod
    def now(cls, identity: str, tool: str, name: str, server: str) -> Consent:
        return cls(identity, tool, name, server, datetime.now(UTC).date().isoformat())


class Consents:
    """The file at `path`. It is read anew each time: another dsr may revoke a consent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> tuple[Consent, ...]:
        """Every consent. Raises VerificationFailed for a damaged file: what it allowed is unknown."""
        try:
            body = json.loads(read_text(self.path))
            if body["schema"] != _SCHEMA:
                raise ValueError
            found = tuple(Consent(**each) for each in body["allowed"])
            if not all(isinstance(value, str) for each in found for value in asdict(each).values()):
                raise ValueError
            return found
        except NotFound:
            return ()
        except (ValueError, KeyError, TypeError, RecursionError):
            raise VerificationFailed(
                f"{self.path} is damaged, or is not a list of allowed tools",
                hint=f"move it away, and dsr asks again for each tool: mv {self.path} {self.path}.broken",
            ) from None

    def has(self, identity: str, tool: str) -> bool:
        return any((each.identity, each.tool) == (identity, tool) for each in self.all())

    def add(self, consent: Consent) -> None:
        """Remember a consent. Raises DsrError if the file cannot be written."""
        others = [each for each in self.all() if (each.identity, each.tool) != (consent.identity, consent.tool)]
        self._write([*others, consent])

    def forget(self, name: str) -> tuple[Consent, ...]:
        """Revoke every consent to a tool of that name, and return them. Raises DsrError."""
        known = self.all()
        gone = tuple(each for each in known if each.name == name)
        if gone:
            self._write([each for each in known if each not in gone])
        return gone

    def _write(self, consents: Sequence[Consent]) -> None:
        body = {"schema": _SCHEMA, "allowed": [asdict(each) for each in consents]}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_stream(self.path, [json_text(body, indent=1).encode()], mode=0o600)
        except OSError as error:
            raise DsrError(f"{self.path}: cannot be written: {error.strerror}") from None
