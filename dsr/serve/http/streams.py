"""Answers that are streamed: what is told of an ask, as server-sent events or lines, until the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import StreamingResponse

from dsr.serve.pool.engine import EngineProcess, ToldFailed
from dsr.serve.told import Told, as_event
from runtime.base.errors import DsrError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Message, Send

    from dsr.serve.http.server import Server

Value = TypeVar("Value")
EVENTS = "text/event-stream"
_PATIENCE = 5.0  # seconds for an error to come as a status; then the answer begins, so that no proxy gives up
_SIGN = 5.0  # seconds between two signs of life


def event(value: Any, name: str = "") -> str:
    """One server-sent event with JSON data (HTML standard, "Server-sent events")."""
    data = value if isinstance(value, str) else compact(value)
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def comment(told: Told) -> str:
    """dsr's own event, as a comment of the stream, which other clients skip: ': dsr {...}'."""
    return f": dsr {compact(as_event(told))}\n\n"


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def unless_gone(request: Request, work: Awaitable[Value]) -> Value:
    """The result of `work`, which is cancelled when the client leaves. Raises ClientDisconnect then."""
    from starlette.requests import ClientDisconnect

    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def event_stream(
    server: Server,
    model: str,
    make: Callable[[EngineProcess], AsyncIterator[str]],
    fail: Callable[[Exception], str],
    *,
    headers: Callable[[], Mapping[str, str]],
    media_type: str = EVENTS,
    sign: Callable[[], str] | None = None,
) -> Response:
    """A streamed answer, whose pieces `make` writes from the engine of a model.

    What fails before the first piece is raised, so that it becomes an error with a status of its own; `make` yields
    nothing before the ask has begun. What fails later becomes the last piece, which `fail` writes. `headers` is called
    when the answer begins. While a client waits, the text of `sign` keeps its connection alive; by default a comment of
    server-sent events, which tells how far the model is loaded.
    """
    pieces = _pieces(server, model, make)
    first = asyncio.ensure_future(anext(pieces, None))
    try:
        await asyncio.wait((first,), timeout=_PATIENCE)
        if first.done():
            first.result()
    except BaseException:
        await _give_up(first, pieces)
        raise

    async def written() -> AsyncIterator[str]:
        try:
            if (piece := await first) is not None:
                yield piece
            async for piece in pieces:
                yield piece
        except (DsrError, ToldFailed) as error:
            yield fail(error)
        finally:
            await _give_up(first, pieces)

    told = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers()}
    return _Stream(written(), sign or partial(_sign, server, model), headers=told, media_type=media_type)


class _Stream(StreamingResponse):
    """A streamed answer that sends a sign of life when it has sent nothing else for a while."""

    def __init__(self, pieces: AsyncIterator[str], sign: Callable[[], str], **options: Any) -> None:
        super().__init__(pieces, **options)
        self._make_sign = sign
        self._sent = 0.0

    async def stream_response(self, send: Send) -> None:
        now = asyncio.get_running_loop().time

        async def noted(message: Message) -> None:
            self._sent = now()
            await send(message)

        signing = asyncio.create_task(self._show_life(noted))
        try:
            await super().stream_response(noted)
        finally:
            signing.cancel()

    async def _show_life(self, send: Send) -> None:
        now = asyncio.get_running_loop().time
        self._sent = now()
        while True:
            silent = now() - self._sent
            if silent < _SIGN:
                await asyncio.sleep(_SIGN - silent)
            else:
                await send({"type": "http.response.body", "body": self._make_sign().encode(), "more_body": True})


async def _pieces(
    server: Server, model: str, make: Callable[[EngineProcess], AsyncIterator[str]]
) -> AsyncGenerator[str, None]:
    async with server.pool.engine(model) as engine:
        made = make(engine)
        try:
            async for piece in made:
                yield piece
        finally:
            await made.aclose()  # type: ignore[attr-defined]


async def _give_up(following: asyncio.Future[str | None], pieces: AsyncGenerator[str, None]) -> None:
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await pieces.aclose()


def _sign(server: Server, model: str) -> str:
    """A comment, which clients skip: what the answer waits for."""
    seat = next((seat for seat in server.pool.seats if seat.name == model), None)
    told: dict[str, Any] = {"type": "waiting", "state": seat.state if seat is not None else "waiting"}
    if seat is not None and seat.progress is not None:
        told |= {"done": seat.progress.done, "total": seat.progress.total, "unit": seat.progress.unit}
    if seat is not None and seat.reason:
        told["reason"] = seat.reason
    return f": dsr {compact(told)}\n\n"
