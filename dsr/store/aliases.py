"""The names that the user gave to models: `name = "reference"` in aliases.toml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from runtime.base.disk_errors import disk_errors
from runtime.base.errors import NotFound, UsageError
from runtime.base.files import write_atomically
from runtime.base.texts import read_toml

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
WORDS = ("list", "set", "show", "remove")  # the commands of dsr alias


def load(path: Path) -> dict[str, str]:
    """The names with the references they stand for; a missing file has none. Raises UsageError naming the file."""
    try:
        table = read_toml(path)
    except NotFound:
        return {}
    for name, target in table.items():
        if not isinstance(target, str) or not _NAME.fullmatch(name):
            raise UsageError(
                f"{path}: {name} must be a text for a name in lower case", hint="mend the file, or delete it"
            )
    return table


def save(path: Path, names: Mapping[str, str]) -> None:
    """Write all names. Raises DsrError (no place), DoesNotFit (no room)."""
    lines = [f"{json.dumps(name)} = {json.dumps(target, ensure_ascii=False)}" for name, target in sorted(names.items())]
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def check_name(name: str) -> str:
    """The name in lower case. Raises UsageError for one that cannot be used."""
    lower = name.casefold()
    if not _NAME.fullmatch(lower) or lower in WORDS or lower.endswith(".gguf"):
        raise UsageError(
            f"{name!r} cannot be a name for a model",
            hint="use letters, digits, '.', '_' and '-', at most 63; not a word of dsr alias, and no .gguf at the end",
        )
    return lower
