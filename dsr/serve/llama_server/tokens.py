"""POST /tokenize, /detokenize, /apply-template, and the number of tokens of a chat's prompt."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.ask import Ask
from dsr.serve.http.body import parsed, read_json
from dsr.serve.http.server import Server
from dsr.serve.http.unread import unknown_fields
from dsr.serve.llama_server.schema import DetokenizeBody, TokenizeBody
from dsr.serve.openai.from_api import chat_ask
from dsr.serve.openai.schema import ChatBody


async def tokenize(request: Request, server: Server) -> Response:
    body, unknown = parsed(TokenizeBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    given = {"text": body.content, "add_bos": body.add_special, "special": body.parse_special}
    async with server.pool.engine(named.model.reference) as engine:
        tokens = await engine.query("tokenize", given)
        if body.with_pieces:
            pieces = await engine.query("pieces", {"tokens": tokens})
            tokens = [{"id": token, "piece": _piece(piece)} for token, piece in zip(tokens, pieces, strict=True)]
    return JSONResponse({"tokens": tokens}, headers=unknown_fields(unknown))


async def detokenize(request: Request, server: Server) -> Response:
    body, unknown = parsed(DetokenizeBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    async with server.pool.engine(named.model.reference) as engine:
        text = await engine.query("detokenize", {"tokens": body.tokens})
    return JSONResponse({"content": text}, headers=unknown_fields(unknown))


async def apply_template(request: Request, server: Server) -> Response:
    """The prompt that the same body would read at /v1/chat/completions."""
    prompt, headers = await _asked(request, server, await read_json(request, server.limits), "prompt")
    return JSONResponse({"prompt": prompt}, headers=headers)


async def input_tokens(request: Request, server: Server) -> Response:
    """How many tokens the prompt of a chat has."""
    count, headers = await _asked(request, server, await read_json(request, server.limits), "count")
    return JSONResponse({"object": "response.input_tokens", "input_tokens": count}, headers=headers)


async def _asked(request: Request, server: Server, given: dict[str, Any], kind: Any) -> tuple[Any, dict[str, str]]:
    body, unknown = parsed(ChatBody, given)
    named = await server.named(body.model)
    ask: Ask = chat_ask(body, named, server.client(request))
    async with server.pool.engine(named.model.reference) as engine:
        return await engine.query(kind, {"ask": ask.wire()}), unknown_fields(unknown)


def _piece(piece: list[int]) -> str | list[int]:
    """The text of a token; its bytes where they are a part of a character."""
    try:
        return bytes(piece).decode()
    except UnicodeDecodeError:
        return piece
