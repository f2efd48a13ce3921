"""The loop that serves: uvicorn's, with an end that tells every client."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from dsr.serve.http.connection import connections_of
from dsr.serve.http.gate import Gate
from dsr.serve.listen import Address

_LAST_WORDS = 5  # seconds in which clients may read the end of their answers


def serve(app: Gate, address: Address, listeners: list[socket.socket], started: Callable[[], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, which are raised again at the end. `started` is called in the loop."""
    limits = app.server.limits
    config = uvicorn.Config(
        app,
        http=connections_of(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could choose its address with them
        timeout_keep_alive=int(limits.kept),
        timeout_graceful_shutdown=_LAST_WORDS,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    _Loop(config, app, started).run(listeners)


class _Loop(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: Gate, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._server = app.server
        self._tell_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.ending.set()
        self._server.pool.end_answers()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGHUP too, which comes when the terminal is closed; nohup ignores it."""
        with super().capture_signals():
            number = getattr(signal, "SIGHUP", None)
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                yield
                return
            before = signal.signal(number, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(number, before)
