"""What a request and a connection may cost before anything is done for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    `body` of one request, `bodies` of all that are being answered; `depth`, `containers` (objects and arrays) and
    `values` of its JSON; `headers` with the request's line. `headers_seconds` to send them, `body_pause` between two
    pieces of a body, `body_seconds` for all of it; `stalled`: a client that takes nothing for so long is left; `kept`:
    a connection without a request. `requests` are answered at once, over so many `connections`.
    """

    body: int = 8 << 20  # a prompt of a million tokens has about 4 MB
    bodies: int = 64 << 20  # parsed and passed on, they take several times as much
    depth: int = 64
    containers: int = 40_000  # ten thousand messages in parts; checking them stops every other answer for a second
    values: int = 300_000  # OpenAI's API embeds so many tokens in a request
    headers: int = 64 << 10
    headers_seconds: float = 10.0
    body_pause: float = 15.0
    body_seconds: float = 120.0
    stalled: float = 60.0
    kept: float = 75.0  # as nginx; clients that reuse connections close them earlier
    requests: int = 256
    connections: int = 512  # below the 1024 files that systems let a process open
