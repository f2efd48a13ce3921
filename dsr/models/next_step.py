"""The command to type next for a model file that was just made or downloaded: one that works for this file."""

from __future__ import annotations

import shlex
from functools import partial

from dsr.models.model import Model
from runtime.base.errors import DsrError, Incompatible
from runtime.gguf.engine_lists import check_answers
from runtime.machine.host import probe
from runtime.machine.machine import usable
from runtime.placement.embedding import plan_embedding
from runtime.placement.memory import largest_context, need

_LEAST_CONTEXT = 512  # with fewer tokens a conversation makes no sense


def next_command(model: Model, name: str | None = None) -> str:
    """`dsr chat` for a model that chats here; else what can be done with it. `name` is how the user calls the model."""
    word = _word(name or model.reference)
    try:
        card = model.card
        available = usable(probe(model.path.parent).memory_available)
        if _chats(model):
            fits = largest_context(partial(need, card), available, card.context_length) >= min(
                _LEAST_CONTEXT, card.context_length
            )
            return f"dsr chat {word}" if fits else f"dsr plan {word}"
        plan_embedding(card, available)
    except DsrError:
        return f"dsr show {word}"
    return f"dsr serve {word}"


def _chats(model: Model) -> bool:
    try:
        check_answers(model.card)
        model.chat_format()
    except Incompatible:
        return False
    return True


def _word(name: str) -> str:
    """The name as a shell takes it; not mistaken for an option."""
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
