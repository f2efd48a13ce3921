"""Answers in JSON: equal if their values are, however they are written."""

from __future__ import annotations

import json
from typing import Any


def json_answer(text: str) -> str | None:
    """The JSON object or array that a whole reply is, in one way to write it; None if it is none.

    Keys are sorted, and 2.0 is 2. A number, text or truth value alone is not read here: as an answer it needs no JSON.
    """
    bare = text.strip()
    if not (bare.startswith(("{", "[")) and bare.endswith(("}", "]"))):
        return None
    try:
        value = json.loads(bare)
        return json.dumps(_plain(value), ensure_ascii=False, sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
