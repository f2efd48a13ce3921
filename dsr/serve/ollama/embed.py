"""POST /api/embed, and the older /api/embeddings."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.embeddings import Embedded, embed, texts_of
from dsr.serve.http.body import Body, Many, parsed, read_json
from dsr.serve.http.server import Server
from dsr.serve.http.unread import unknown_fields
from dsr.serve.ollama.from_api import seconds_of
from dsr.serve.ollama.schema import Options


class EmbedBody(Body):
    """`truncate`: long texts are cut, else they are an error."""

    model: str
    input: str | Many[str] = ""
    truncate: bool = True
    dimensions: int | None = Field(default=None, ge=1)
    options: Options | None = None
    keep_alive: int | float | str | None = None


class OldEmbedBody(Body):
    model: str
    prompt: str = ""
    options: Options | None = None
    keep_alive: int | float | str | None = None


async def embed_texts(request: Request, server: Server) -> Response:
    begun = time.perf_counter_ns()
    body, unknown = parsed(EmbedBody, await read_json(request, server.limits))
    found = await _embedded(request, server, body, body.input, dimensions=body.dimensions, truncate=body.truncate)

    def answer() -> bytes:
        facts: dict[str, Any] = {"total_duration": time.perf_counter_ns() - begun, "load_duration": 0}
        vectors = [found.numbers(index) for index in range(len(found.vectors))]
        told = {"model": body.model, "embeddings": vectors, **facts, "prompt_eval_count": found.tokens}
        return bytes(JSONResponse(told).body)

    return Response(await run_in_threadpool(answer), media_type="application/json", headers=unknown_fields(unknown))


async def embed_prompt(request: Request, server: Server) -> Response:
    """The older route: one text, one vector. Ollama gives it as it is, dsr with length 1."""
    body, unknown = parsed(OldEmbedBody, await read_json(request, server.limits))
    found = await _embedded(request, server, body, body.prompt, truncate=True)
    return JSONResponse({"embedding": found.numbers(0) if found.vectors else []}, headers=unknown_fields(unknown))


async def _embedded(
    request: Request,
    server: Server,
    body: EmbedBody | OldEmbedBody,
    given: str | list[str],
    *,
    dimensions: int | None = None,
    truncate: bool,
) -> Embedded:
    """Without a text the model is only opened."""
    reference, seconds = (await server.named(body.model)).model.reference, seconds_of(body.keep_alive)
    if given:
        texts = texts_of(given, "input")
        found = await embed(request, server, reference, texts, dimensions=dimensions, truncate=truncate)
    else:
        async with server.pool.engine(reference):
            found = Embedded((), 0)
    server.pool.keep(reference, seconds)
    return found
