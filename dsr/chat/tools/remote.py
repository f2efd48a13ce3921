"""Servers that are reached by streamable HTTP, with bounded answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from dsr.chat.tools.config import RemoteServer

_LONGEST_ANSWER = 16 << 20  # bytes; as for a local server


class AnswerTooLong(httpx2.StreamError):
    """A server sent more than any result needs."""

    def __init__(self) -> None:
        super().__init__(f"the answer has more than {_LONGEST_ANSWER >> 20} MiB")


@asynccontextmanager
async def remote_transport(server: RemoteServer) -> AsyncIterator[Any]:
    """The streams of a server, for `mcp.Client`. Redirects stay within its origin, where the headers are meant for."""
    async with create_mcp_http_client(headers=dict(server.headers)) as client:
        client.event_hooks = {"response": [_bound]}
        async with streamable_http_client(
            server.url, http_client=client, max_sse_event_size=_LONGEST_ANSWER
        ) as streams:
            yield streams


async def _bound(response: httpx2.Response) -> None:
    stream = response.stream
    event_stream = response.headers.get("content-type", "").startswith("text/event-stream")
    if isinstance(stream, httpx2.AsyncByteStream) and not event_stream:
        response.stream = _Bounded(stream)


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends with an error after `_LONGEST_ANSWER` bytes."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for chunk in self._inner:
            read += len(chunk)
            if read > _LONGEST_ANSWER:
                raise AnswerTooLong
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
