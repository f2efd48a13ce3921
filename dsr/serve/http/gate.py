"""What is done around every request: access, limits, cancellation, CORS, the log and the numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dsr.serve import account
from dsr.serve.http import log
from dsr.serve.http.errors import CLIENT_LEFT, Refused
from dsr.serve.http.metrics import Metrics
from dsr.serve.http.routes import Api
from dsr.serve.http.server import Server

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ABORT = "dsr.abort"  # the extension of a request's scope that ends its connection at once
# Of a body that is refused, so much is read before the answer: many clients read no answer before they have sent all.
_DRAINED = 16 << 20
_DRAIN_SECONDS = 10.0
_METHODS = b"GET, POST, PUT, PATCH, DELETE"
_EXPOSED = b"X-Dsr-Unknown-Fields, Retry-After"
_PREFLIGHT_SECONDS = b"600"
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Gate:
    """The application behind its access rules and limits. `api_of` has the API whose form an error takes."""

    def __init__(self, app: ASGIApp, server: Server, api_of: Callable[[str], Api], metrics: Metrics) -> None:
        self.app = app
        self.server = server
        self.api_of = api_of
        self.metrics = metrics
        self.in_flight = 0
        self.held = 0  # bytes of the bodies of requests that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._limits = gate.server.limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = dict(scope["headers"])
        self._origin: str | None = None
        self._body = 0
        self._body_until: float | None = None
        self._body_left = b"transfer-encoding" in self._headers or self._headers.get(b"content-length", b"0") != b"0"
        self._end_told = False  # whether the application knows that nothing more comes
        self._left = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._status = CLIENT_LEFT
        self._sent = False

    async def run(self) -> None:
        gate, begun, spent = self._gate, time.perf_counter(), account.opened()
        gate.in_flight += 1
        gate.metrics.in_flight.inc()
        try:
            await self._answer()
        finally:
            gate.in_flight -= 1
            gate.held -= self._body
            gate.metrics.in_flight.dec()
            seconds, method = time.perf_counter() - begun, self._scope["method"]
            gate.metrics.request_ended(method, self._status, seconds, spent)
            log.request_ended((self._scope["client"] or ("",))[0], method, self._status, seconds, spent)

    async def _answer(self) -> None:
        """Answer in a task of its own, which ends when the client leaves."""
        self._answering = asyncio.create_task(self._chosen_answer())
        if not self._body_left:
            self._body_ended()
        try:
            await self._answering
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._left.is_set() or (task is not None and task.cancelling()):
                raise
        finally:
            if self._watch is not None:
                self._watch.cancel()

    async def _chosen_answer(self) -> None:
        await self._chosen()(self._scope, self.receive, self.send)

    def _chosen(self) -> ASGIApp:
        """What answers: the application, a refusal, or the answer to a preflight."""
        gate, scope = self._gate, self._scope
        access, path = gate.server.access, scope["path"]
        preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in self._headers
        try:
            access.check(path, scope["headers"], preflight=preflight)
            self._origin = access.shared_with(scope["headers"])
            if gate.in_flight > self._limits.requests and path != "/health":
                raise Refused(503, f"{self._limits.requests} requests are being answered already")
        except Refused as error:
            self._origin = self._origin or access.shared_with(scope["headers"])
            return gate.api_of(path).failed(error)
        return self._preflight if preflight else gate.app

    async def _preflight(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", self._headers.get(b"access-control-request-headers", b"*")),
            (b"access-control-max-age", _PREFLIGHT_SECONDS),
        ]
        if self._headers.get(b"access-control-request-private-network") == b"true":
            headers.append((b"access-control-allow-private-network", b"true"))
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    # What the application receives

    async def receive(self) -> Message:
        """Raises Refused: 408 for a body that comes too slowly, 503 if all bodies together are too large."""
        if self._body_left:
            return await self._receive_body()
        if not self._end_told:
            self._end_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _receive_body(self) -> Message:
        now = asyncio.get_running_loop().time()
        if self._body_until is None:
            self._body_until = now + self._limits.body_seconds
        try:
            async with asyncio.timeout_at(min(now + self._limits.body_pause, self._body_until)):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, "the body of the request came too slowly") from None
        if message["type"] == "http.disconnect":
            self._left.set()
            return message
        size = len(message.get("body", b""))
        self._body += size
        self._gate.held += size
        if self._gate.held > self._limits.bodies:
            raise Refused(503, "the requests that are being answered take too much memory")
        if not message.get("more_body", False):
            self._end_told = True
            self._body_ended()
        return message

    def _body_ended(self) -> None:
        self._body_left = False
        self._watch = asyncio.create_task(self._wait_for_leave())

    async def _wait_for_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left.set()
        if self._answering is not None and not self._sent:
            self._answering.cancel()

    # What the application sends

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = await self._started(message)
        elif not message.get("more_body", False):
            self._sent = True  # from here on the client may leave
        abort = self._scope.get("extensions", {}).get(ABORT)
        if abort is None:
            await self._send(message)
            return
        stalled = asyncio.get_running_loop().call_later(self._limits.stalled, abort)
        try:
            await self._send(message)
        finally:
            stalled.cancel()

    async def _started(self, message: Message) -> Message:
        headers = [*message.get("headers", ())]
        if not any(name.lower() == _NOSNIFF[0] for name, _ in headers):
            headers.append(_NOSNIFF)
        if self._origin is not None:
            headers += [
                (b"access-control-allow-origin", self._origin.encode("latin-1")),
                (b"access-control-expose-headers", _EXPOSED),
            ]
        if self._gate.server.access.origins:
            headers.append((b"vary", b"Origin"))
        if self._body_left:
            await self._drain()
            if self._body_left:
                headers.append((b"connection", b"close"))
        self._status = message["status"]
        return {**message, "headers": headers}

    async def _drain(self) -> None:
        """Read and forget the rest of a body that nobody wants, as far as it is worth it."""
        if b"expect" in self._headers:
            return  # the client sends nothing before it is asked to
        drained = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while drained < _DRAINED:
                    message = await self._receive()
                    drained += len(message.get("body", b""))
                    if message["type"] == "http.disconnect":
                        self._left.set()
                        return
                    if not message.get("more_body", False):
                        self._body_ended()
                        return
        except TimeoutError:
            return
