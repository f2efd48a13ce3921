"""Conversations in JSON files, as /save writes them and /load reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from runtime.base.errors import DsrError, UsageError
from runtime.base.files import write_atomically
from runtime.base.texts import json_text, read_text
from runtime.base.types import Message, Role


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
        said = [(turn["role"], turn["content"], turn.get("thinking", "")) for turn in body["messages"]]
        sound = all(
            role in ("user", "assistant") and all(isinstance(text, str) for text in texts) for role, *texts in said
        )
        if not sound or not isinstance(body["system"], str):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path}: is not a conversation that /save wrote") from None
    return body["system"], [Message(cast(Role, role), content, thinking) for role, content, thinking in said]


def _as_json(turn: Message) -> dict[str, str]:
    thinking = {"thinking": turn.thinking} if turn.thinking else {}
    return {"role": turn.role, "content": turn.content, **thinking}
