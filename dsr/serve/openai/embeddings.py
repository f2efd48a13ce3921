"""POST /v1/embeddings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.embeddings import Embedded, embed, texts_of
from dsr.serve.http.body import Body, Many, parsed, read_json
from dsr.serve.http.server import Server
from dsr.serve.http.unread import unknown_fields


class EmbeddingBody(Body):
    model: str | None = None
    input: str | Many[int] | Many[str | Many[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


async def embeddings(request: Request, server: Server) -> Response:
    body, unknown = parsed(EmbeddingBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    texts = texts_of(body.input, "input")
    found = await embed(request, server, named.model.reference, texts, dimensions=body.dimensions)
    answer = await run_in_threadpool(_answer, body, body.model or named.shown, found)
    return Response(answer, media_type="application/json", headers=unknown_fields(unknown))


def _answer(body: EmbeddingBody, model: str, found: Embedded) -> bytes:
    """The body of the answer. Many numbers take a while to write, so no thread that serves others makes it."""
    base64 = body.encoding_format == "base64"
    rows: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": vector if base64 else found.numbers(index)}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return bytes(JSONResponse({"object": "list", "data": rows, "model": model, "usage": usage}).body)
