"""POST /embedding and /embeddings, as llama-server has them: a list of lists, without usage."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.embeddings import Embedded, embed, texts_of
from dsr.serve.http.body import Body, Many, parsed, read_json
from dsr.serve.http.errors import Refused
from dsr.serve.http.server import Server
from dsr.serve.http.unread import unknown_fields

_EUCLIDEAN = 2  # embd_normalize of llama-server


class EmbeddingBody(Body):
    model: str | None = None
    content: str | Many[int] | Many[str | Many[int]] | None = None
    input: str | Many[int] | Many[str | Many[int]] | None = None
    embd_normalize: int = _EUCLIDEAN


async def embedding(request: Request, server: Server) -> Response:
    body, unknown = parsed(EmbeddingBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    place, given = ("content", body.content) if body.input is None else ("input", body.input)
    if given is None:
        raise Refused(400, '"input" or "content" must be given', place="input")
    if body.embd_normalize != _EUCLIDEAN:
        message = f"embd_normalize: vectors have length 1 ({_EUCLIDEAN}), not {body.embd_normalize}"
        raise Refused(400, message, place="embd_normalize")
    found = await embed(request, server, named.model.reference, texts_of(given, place))
    return Response(
        await run_in_threadpool(_answer, found), media_type="application/json", headers=unknown_fields(unknown)
    )


def _answer(found: Embedded) -> bytes:
    rows: list[dict[str, Any]] = [
        {"index": index, "embedding": [found.numbers(index)]} for index in range(len(found.vectors))
    ]
    return bytes(JSONResponse(rows).body)
