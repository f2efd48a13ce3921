"""POST /api/chat and /api/generate: lines of JSON, or one object."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.chat.logprobs import token_row
from dsr.serve.answers import Answer, shows_as_drawn, whole
from dsr.serve.ask import Ask
from dsr.serve.http.body import parsed, read_json
from dsr.serve.http.errors import Refused, fault_of
from dsr.serve.http.server import Server
from dsr.serve.http.streams import compact, event_stream, unless_gone
from dsr.serve.http.unread import unread_fields
from dsr.serve.names import Named
from dsr.serve.ollama.errors import error_body
from dsr.serve.ollama.from_api import chat_ask, generate_ask, seconds_of
from dsr.serve.ollama.schema import ChatBody, Drawing, GenerateBody
from dsr.serve.pool.engine import EngineProcess
from dsr.serve.told import Ended, Told
from runtime.base.events import TextDrawn, TokenDrawn
from runtime.base.types import ToolCall

_LINES = "application/x-ndjson"


async def chat(request: Request, server: Server) -> Response:
    body, unknown = parsed(ChatBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    if not body.messages:
        return await _load_only(server, named, body, {"message": {"role": "assistant", "content": ""}})
    ask = chat_ask(body, named, server.client(request))
    return await _answer(request, server, named, body, OllamaReply(body.model, ask, chat=True), unknown)


async def generate(request: Request, server: Server) -> Response:
    body, unknown = parsed(GenerateBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    if not body.prompt:
        return await _load_only(server, named, body, {"response": ""})
    ask = generate_ask(body, named, server.client(request))
    return await _answer(request, server, named, body, OllamaReply(body.model, ask, chat=False), unknown)


async def _load_only(server: Server, named: Named, body: Drawing, empty: dict[str, Any]) -> Response:
    """Without a question the model is opened, or leaves with `keep_alive` 0."""
    reference = named.model.reference
    seconds = seconds_of(body.keep_alive)
    if seconds == 0:
        await server.pool.unload(reference)
    else:
        async with server.pool.engine(reference):
            server.pool.keep(reference, seconds)
    reason = "unload" if seconds == 0 else "load"
    return JSONResponse({"model": body.model, "created_at": _now(), **empty, "done": True, "done_reason": reason})


async def _answer(
    request: Request, server: Server, named: Named, body: Drawing, reply: OllamaReply, unknown: tuple[str, ...]
) -> Response:
    reference = named.model.reference
    seconds, wanted = seconds_of(body.keep_alive), body.options.num_ctx if body.options else None

    async def stream(engine: EngineProcess) -> AsyncIterator[str]:
        _check(engine, wanted)
        async for line in reply.stream(engine):
            yield line
        server.pool.keep(reference, seconds)

    headers = partial(unread_fields, server, reference, unknown, reply.ask, "think")
    if body.stream:
        # Clients read each line as JSON, so a sign of life is an answer without text. Ollama itself sends none, and
        # clients such as ollama-js (Node's fetch) give up after five minutes without a line.
        return await event_stream(
            server, reference, stream, _fail, headers=headers, media_type=_LINES, sign=reply.sign_of_life
        )
    async with server.pool.engine(reference) as engine:
        _check(engine, wanted)
        answer = await unless_gone(request, whole(engine, reply.ask))
        server.pool.keep(reference, seconds)
    return JSONResponse(reply.whole(answer), headers=headers())


def _check(engine: EngineProcess, context: int | None) -> None:
    """Raises Refused for a context that is longer than the open model's."""
    longest = engine.props["longest"]
    if context is not None and context > longest:
        place = "options.num_ctx"
        message = f"{place}: the model is open with {longest} tokens of context, not {context}"
        raise Refused(400, message, hint="start the server with --ctx-size", place=place)


def _fail(error: Exception) -> str:
    return compact(error_body(fault_of(error))) + "\n"


@dataclass(slots=True)
class OllamaReply:
    """Writes the reply to one request. `chat`: as a message, else as a response."""

    model: str
    ask: Ask
    chat: bool
    begun: int = field(default_factory=time.perf_counter_ns)
    _tokens: list[TokenDrawn] = field(default_factory=list)

    def whole(self, answer: Answer) -> dict[str, Any]:
        sample = answer.samples[0] if answer.samples else None
        said = self._said() if sample is None else self._said(sample.answer, sample.thinking, sample.calls)
        tokens = answer.tokens.get(sample.sample, []) if sample is not None else []
        return {**self._frame(), **said, **self._logprobs(tokens), **self._end(answer, sample)}

    def sign_of_life(self) -> str:
        return compact({**self._frame(), **self._said(), "done": False}) + "\n"

    async def stream(self, engine: EngineProcess) -> AsyncIterator[str]:
        answer = Answer()
        at_once = shows_as_drawn(self.ask)
        async for come in engine.ask(self.ask):
            lines = []
            for told in come:
                answer.add(told)
                if at_once:
                    lines += self._as_drawn(told)
            if lines:
                yield "".join(lines)
        sample = answer.samples[0] if answer.samples else None
        if sample is not None and not at_once:
            self._tokens = answer.tokens.get(sample.sample, [])
            yield self._line(self._said(sample.answer, sample.thinking))
        yield self._line(self._said(), **self._end(answer, sample))

    def _as_drawn(self, told: Told) -> list[str]:
        if isinstance(told, TokenDrawn):
            self._tokens.append(told)  # they go with the text that they complete
        if isinstance(told, TextDrawn):
            thinking = told.part == "thinking"
            return [self._line(self._said("" if thinking else told.text, told.text if thinking else ""))]
        if isinstance(told, Ended) and any(each.complete for each in told.calls):
            return [self._line(self._said(calls=told.calls))]
        return []

    def _line(self, said: dict[str, Any], **more: Any) -> str:
        tokens, self._tokens = self._tokens, []
        return compact({**self._frame(), **said, "done": False, **self._logprobs(tokens), **more}) + "\n"

    def _logprobs(self, tokens: list[TokenDrawn]) -> dict[str, Any]:
        """Of thought and answer, as they were drawn."""
        return {"logprobs": [token_row(each) for each in tokens]} if tokens else {}

    def _said(self, answer: str = "", thinking: str = "", calls: tuple[ToolCall, ...] = ()) -> dict[str, Any]:
        thought = {"thinking": thinking} if thinking else {}
        if not self.chat:
            return {"response": answer, **thought}
        whole = [_call(each) for each in calls if each.complete]  # one without its end has no arguments to use
        called = {"tool_calls": whole} if whole else {}
        return {"message": {"role": "assistant", "content": answer, **thought, **called}}

    def _frame(self) -> dict[str, Any]:
        return {"model": self.model, "created_at": _now()}

    def _end(self, answer: Answer, sample: Ended | None) -> dict[str, Any]:
        whole = time.perf_counter_ns() - self.begun
        drawing = int(1e9 * sample.seconds) if sample is not None else 0
        own = {"dsr": {"verdict": answer.decided.verdict}} if answer.decided is not None else {}
        return {
            "done": True,
            "done_reason": "length" if sample is not None and sample.finish_reason == "length" else "stop",
            "total_duration": whole,
            "load_duration": 0,
            "prompt_eval_count": answer.prompt_tokens,
            "prompt_eval_duration": max(0, whole - drawing),
            "eval_count": answer.drawn,
            "eval_duration": drawing,
            **own,
        }


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.values}}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
