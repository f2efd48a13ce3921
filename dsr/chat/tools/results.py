"""The result of a call as the text that a model reads."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from dsr.ui.console import one_line, printable_stream
from runtime.base.types import ByteCount

# Characters of a result in a prompt. A context has room for about four characters a token.
_MOST_CHARACTERS = 64_000
_FEWEST_CHARACTERS = 2_000


def longest_result(context: int) -> int:
    """The most characters of one result for a context of so many tokens: about a quarter of it."""
    return max(_FEWEST_CHARACTERS, min(context, _MOST_CHARACTERS))


def result_text(content: Sequence[Any], structured: object = None) -> str:
    """The text of a result's parts, as `mcp.types` has them. Images, sounds and other bytes are named, not read.

    Control and format characters are removed: the person and the model see the same text.
    """
    parts = [_part(each) for each in content]
    if not any(part.strip() for part in parts) and structured is not None:
        parts = [json.dumps(structured, ensure_ascii=False)]
    return printable_stream("\n".join(part for part in parts if part)).strip("\n")


def cut(text: str, most: int) -> str:
    """The beginning of a text of more than `most` characters, with a note for the model."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[cut: {len(text) - most:,} more characters]"


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
