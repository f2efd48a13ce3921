"""Shows and changes the user's settings: each value with its origin, and config.toml line by line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from dsr.store.settings import KINDS, Settings, check_key, checked, from_environment, from_file
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import NotFound, UsageError
from runtime.base.files import write_atomically
from runtime.base.texts import parse_toml, read_text

Origin = Literal["default", "file", "environment"]
_DEFAULTS = {field.name: field.default for field in fields(Settings) if field.name in KINDS}
HEAD = "# Settings of dsr: docs/reference/settings.md, or dsr config list\n"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `value` None: by model and machine. `source` is the file or the variable, "" for a default."""

    key: str
    value: Any
    origin: Origin
    source: str = ""

    def json(self) -> dict[str, Any]:
        return {"key": self.key, "value": self.value, "origin": self.origin, "source": self.source or None}


def described(path: Path, environ: Mapping[str, str] = os.environ) -> tuple[Setting, ...]:
    """Every setting with the origin of its value. Raises UsageError for a wrong file or variable."""
    in_file, in_environment = from_file(path), from_environment(environ)

    def one(key: str) -> Setting:
        if key in in_environment:
            return Setting(key, in_environment[key], "environment", f"DSR_{key.upper()}")
        if key in in_file:
            return Setting(key, in_file[key], "file", str(path))
        return Setting(key, _DEFAULTS.get(key), "default")

    return tuple(map(one, KINDS))


def set_value(path: Path, key: str, text: str) -> Any:
    """Write one setting; the other lines stay as they are. Returns the value.

    Raises UsageError for an unknown key or a value that it cannot have, and DsrError if the file cannot be written.
    """
    value = checked(f"dsr config {key}" if key in KINDS else "dsr config", key, text)
    _change(path, key, f"{key} = {_toml(value)}\n", value)
    return value


def unset(path: Path, key: str) -> None:
    """Remove one setting, so that its default counts. Raises as `set_value`."""
    check_key("dsr config", key)
    _change(path, key, "", None)


def begin(path: Path) -> None:
    """Write an empty file with a comment, unless there is a file."""
    if not path.exists():
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, HEAD.encode())


def _change(path: Path, key: str, line: str, value: Any) -> None:
    try:
        before = read_text(path)
    except NotFound:
        before = HEAD
    there = parse_toml(before, str(path))
    wanted = {name: each for name, each in {**there, key: value}.items() if each is not None}
    if wanted == there:
        return
    pattern = re.compile(rf"^[ \t]*{re.escape(key)}[ \t]*=.*(?:\n|\Z)", re.MULTILINE)
    after = pattern.sub(lambda _: line, before, count=1)
    if line and not pattern.search(before):
        after = before + ("" if before.endswith("\n") or not before else "\n") + line
    try:
        done = parse_toml(after, str(path)) == wanted
    except UsageError:
        done = False
    if not done:
        raise UsageError(f"{path}: the line of {key} cannot be changed by dsr", hint="edit the file: dsr config edit")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, after.encode())


def _toml(value: Any) -> str:
    """TOML's basic strings have JSON's escapes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
