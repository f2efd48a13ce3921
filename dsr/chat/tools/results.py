"""The result of a call as the text that a model reads."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from dsr.ui.console import one_line, printable_stream
from runtime.base.types import ByteCount

# Of a context: one result takes at most a quarter of it. All results of an answer take at most half of the room that is
# left, so that the next answer has room, too.
_SHARE, _SHARE_OF_ROOM = 4, 2
# Counting the tokens of more characters takes time, and a quarter of most contexts has fewer.
_MOST_CHARACTERS = 200_000


def tokens_for_result(longest: int, taken: int, calls: int) -> int:
    """The most tokens of each result of `calls` calls, if a prompt with its answer has at most `longest` tokens, and
    the prompt so far with the calls has `taken`."""
    return max(0, min(longest // _SHARE, (longest - taken) // _SHARE_OF_ROOM // max(calls, 1)))


def result_text(content: Sequence[Any], structured: object = None) -> str:
    """The text of a result's parts, as `mcp.types` has them. Images, sounds and other bytes are named, not read.

    Control and format characters are removed: the person and the model see the same text.
    """
    parts = [_part(each) for each in content]
    if not any(part.strip() for part in parts) and structured is not None:
        parts = [json.dumps(structured, ensure_ascii=False)]
    return printable_stream("\n".join(part for part in parts if part)).strip("\n")


def shortened(text: str, most: int, count: Callable[[str], int]) -> str:
    """The beginning of a text of more than `most` tokens, as `count` counts them, with a note for the model."""
    kept = text[:_MOST_CHARACTERS]
    while kept and (tokens := count(kept)) > most:
        kept = kept[: min(len(kept) - 1, len(kept) * most // tokens)]
    return text if kept == text else f"{kept}\n[cut: {len(text) - len(kept):,} more characters]"


def _part(part: Any) -> str:
    kind = getattr(part, "type", "")
    if kind == "text":
        return str(part.text)
    if kind in ("image", "audio"):
        return f"[{kind} of type {one_line(str(part.mime_type))}, {_size(part.data)}, not read]"
    if kind == "resource_link":
        return f"[resource {one_line(str(part.name))}: {one_line(str(part.uri))}]"
    if kind == "resource":
        inner = part.resource
        if isinstance(text := getattr(inner, "text", None), str):
            return text
        return f"[resource {one_line(str(inner.uri))}, {_size(getattr(inner, 'blob', ''))}, not read]"
    return f"[a part of the type {one_line(str(kind))}, not read]"


def _size(encoded: str) -> ByteCount:
    try:
        return ByteCount(len(base64.b64decode(encoded)))
    except ValueError:
        return ByteCount(len(encoded))
