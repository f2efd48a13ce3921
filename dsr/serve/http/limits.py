"""What a request may cost before anything is done for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """`body`: bytes of a request; `depth`: levels of nested JSON; `seconds`: how long an answer may take, None for no
    limit.
    """

    body: int = 8 << 20
    depth: int = 64
    seconds: float | None = None
