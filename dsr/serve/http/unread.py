"""The header that tells a client which of its fields changed nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.serve.ask import Ask
from dsr.serve.http.server import Server


def unknown_fields(names: Sequence[str]) -> dict[str, str]:
    """The header that tells which fields were not read."""
    safe = ",".join(name for name in names[:20] if name.isascii() and name.isprintable() and len(name) < 60)
    return {"X-Dsr-Unknown-Fields": safe} if safe else {}


def unread_fields(server: Server, reference: str, unknown: Sequence[str], ask: Ask, effort: str) -> dict[str, str]:
    """As `unknown_fields`, with the field `effort` if the model is open and has no levels of effort.

    Coding assistants send an effort with every request, whatever the model is.
    """
    seat = next((each for each in server.pool.seats if each.name == reference), None)
    levels = seat.engine.props.get("efforts") if seat is not None else None
    wanted = ask.options.effort is not None and ask.options.thinking is not False
    return unknown_fields([*unknown, effort] if wanted and levels == [] else unknown)
