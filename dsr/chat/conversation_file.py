"""Conversations in JSON files, as /save writes them and /load reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from runtime.base.errors import DsrError, UsageError
from runtime.base.files import write_atomically
from runtime.base.texts import json_text, read_text
from runtime.base.types import Message, Role, ToolCall


def write_conversation(path: Path, model: str, system: str, messages: Sequence[Message]) -> None:
    """Write a conversation. Raises DsrError if the file cannot be written."""
    body = {
        "schema": "dsr.conversation/1",
        "model": model,
        "system": system,
        "messages": [_as_json(each) for each in messages],
    }
    try:
        write_atomically(path, json_text(body, indent=1).encode())
    except OSError as error:
        raise DsrError(f"{path}: cannot be written: {error.strerror}") from None


def read_conversation(path: Path) -> tuple[str, list[Message]]:
    """System prompt and messages of a file that /save wrote. Raises NotFound or UsageError."""
    try:
        body = json.loads(read_text(path))
        said = [_message(turn) for turn in body["messages"]]
        if not isinstance(body["system"], str):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{path}: is not a conversation that /save wrote") from None
    return body["system"], said


def _message(turn: dict[str, Any]) -> Message:
    """Raises ValueError, KeyError, TypeError or AttributeError for something that /save does not write."""
    calls = tuple(ToolCall(each["id"], each["name"], each["arguments"]) for each in turn.get("calls", ()))
    texts = (turn["content"], *(turn.get(key, "") for key in ("thinking", "call_id", "name")))
    of_calls = (text for call in calls for text in (call.id, call.name, call.arguments))
    if turn["role"] not in ("user", "assistant", "tool") or not all(
        isinstance(each, str) for each in (*texts, *of_calls)
    ):
        raise ValueError
    content, thinking, call_id, name = texts
    return Message(cast(Role, turn["role"]), content, thinking, calls, call_id, name)


def _as_json(turn: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.calls:
        said["calls"] = [asdict(each) for each in turn.calls]
    for key in ("thinking", "call_id", "name"):
        if value := getattr(turn, key):
            said[key] = value
    return said
