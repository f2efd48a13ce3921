"""The form that a person wants answers in."""

from __future__ import annotations

from pathlib import Path

from runtime.base.errors import UsageError
from runtime.base.texts import read_text
from runtime.engine.grammar import JSON_OBJECT, Grammar


def grammar_of(value: str) -> Grammar:
    """The value of `--format`: "json" for a JSON object, or the file of a JSON Schema.

    Raises NotFound, and UsageError for a file that is no schema; its place is named.
    """
    if value == "json":
        return JSON_OBJECT
    path = Path(value)
    text = read_text(path)
    try:
        return Grammar("json_schema", text)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from None
