"""Answers that are streamed: what is told of an ask, as server-sent events or lines, until the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dsr.serve.pool.engine import EngineProcess, ToldFailed
from runtime.base.errors import DsrError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from dsr.serve.http.server import Server

Value = TypeVar("Value")
EVENTS = "text/event-stream"
_PATIENCE = 5.0  # seconds for an error to come as a status; then the answer begins, so that no proxy gives up
_SIGN = 5.0  # seconds between two signs of life


def event(value: Any, name: str = "") -> str:
    """One server-sent event with JSON data (HTML standard, "Server-sent events")."""
    data = value if isinstance(value, str) else compact(value)
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


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
    headers: Mapping[str, str],
    media_type: str = EVENTS,
) -> Response:
    """A streamed answer, whose pieces `make` writes from the engine of a model.

    What fails before the first piece is raised, so that it becomes an error with a status of its own; `make` yields
    nothing before the ask has begun. What fails later becomes the last piece, which `fail` writes. While a client of
    server-sent events waits, comments keep its connection alive, and tell how far the model is loaded.
    """
    from starlette.responses import StreamingResponse

    pieces = _pieces(server, model, make)
    following = asyncio.ensure_future(anext(pieces, None))
    signs = media_type == EVENTS
    try:
        await asyncio.wait((following,), timeout=_PATIENCE if signs else None)
        if following.done():
            following.result()
    except BaseException:
        await _give_up(following, pieces)
        raise

    async def written() -> AsyncIterator[str]:
        nonlocal following
        try:
            while True:
                while not following.done():
                    await asyncio.wait((following,), timeout=_SIGN if signs else None)
                    if not following.done():
                        yield _sign(server, model)
                if (piece := following.result()) is None:
                    return
                yield piece
                following = asyncio.ensure_future(anext(pieces, None))
        except (DsrError, ToldFailed) as error:
            yield fail(error)
        finally:
            await _give_up(following, pieces)

    told = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
    return StreamingResponse(written(), headers=told, media_type=media_type)


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
