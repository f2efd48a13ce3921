"""A conversation as a Markdown file, for people."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.base.types import Message


def as_markdown(model: str, system: str, turns: Sequence[Message]) -> str:
    """The whole conversation: questions as quotes, answers as they are, thoughts left out."""
    parts = [f"# Conversation with {model}"]
    if system:
        parts.append(f"System prompt:\n\n{_quoted(system)}")
    for turn in turns:
        if turn.role == "user":
            parts.append(_quoted(turn.content))
        elif turn.role == "tool":
            parts.append(f"{turn.name or 'A tool'} returned:\n\n{_fenced(turn.content)}")
        else:
            parts += [turn.content] if turn.content.strip() else []
            parts += [f"It called {call.name} with:\n\n{_fenced(call.arguments)}" for call in turn.calls]
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _fenced(text: str) -> str:
    """The text as code, in a fence longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
