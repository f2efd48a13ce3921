"""Answers that are streamed: what is told of an ask, as server-sent events or lines, until the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from dsr.serve.pool.engine import EngineProcess, ToldFailed
from runtime.base.errors import DsrError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from dsr.serve.http.server import Server

Value = TypeVar("Value")


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
    media_type: str = "text/event-stream",
) -> Response:
    """A streamed answer, whose pieces `make` writes from the engine of a model.

    What fails before the first piece is raised, so that it becomes an error with a status of its own. What fails later
    becomes the last piece, which `fail` writes.
    """
    from starlette.responses import StreamingResponse

    stack = AsyncExitStack()
    try:
        engine = await stack.enter_async_context(server.pool.engine(model))
        pieces = make(engine)
        first = await anext(pieces, "")
    except BaseException:
        await stack.aclose()
        raise

    async def written() -> AsyncIterator[str]:
        async with stack, aclosing(pieces):  # type: ignore[type-var]
            yield first
            try:
                async for piece in pieces:
                    yield piece
            except (DsrError, ToldFailed) as error:
                yield fail(error)

    told = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
    return StreamingResponse(written(), headers=told, media_type=media_type)
