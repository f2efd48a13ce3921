"""A connection: uvicorn's, with limits on headers, their time and the number of connections.

Requests that a client sends before it has read the answer to its last one (pipelining) are not answered: after that
answer the connection closes, as RFC 9112, 9.3.2 allows. Hardly any client sends them, and while uvicorn holds them it
does not see that the client leaves.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dsr.serve.http.gate import ABORT
from dsr.serve.http.limits import Limits

_LINGER = 2.0  # seconds in which a refused client may read why


def connections_of(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol class of a server with these limits."""

    class Connection(_Connection):
        bounds = limits

    return Connection


class _Connection(HttpToolsProtocol):
    bounds: Limits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None  # runs while headers are awaited
        self._head = 0
        self._surplus = False  # the client sends more requests before the answer to the last one

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            self._refuse(503, "too many connections", "retry-after: 2")
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._surplus or self.transport.is_closing():
            return
        if self._timer is not None:
            self._head += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._timer is not None and self._head > self.bounds.headers:
            self._refuse(431, f"at most {self.bounds.headers} bytes of headers are read")
        elif self._timer is None and self.timeout_keep_alive_task is None and self._is_idle:
            self._await_headers()  # nothing but empty lines came

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_headers(self) -> None:
        if self._timer is None:
            self._head = 0
            self._timer = self.loop.call_later(self.bounds.headers_seconds, self._too_slow)

    def _headers_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._refuse(408, "the headers of the request came too slowly")

    def _refuse(self, status: int, text: str, *headers: str) -> None:
        if self.transport.is_closing():
            return
        lines = [f"HTTP/1.1 {status} ", *headers, "content-type: text/plain", f"content-length: {len(text)}"]
        self.transport.write("\r\n".join([*lines, "connection: close", "", text]).encode("ascii"))
        self._headers_came()
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        # A socket that is closed before all has been read resets the connection, and the client never sees why.
        self._surplus = True
        self.connections.discard(self)  # it costs nothing more, and another client may come
        self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.abort)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        if not self._is_idle:
            self._surplus = True
            self.cycle.keep_alive = False
            return
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item]
        self._await_headers()

    def on_url(self, url: bytes) -> None:
        if not self._surplus:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._surplus:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._surplus:
            self._headers_came()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._surplus:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._surplus:
            super().on_message_complete()
