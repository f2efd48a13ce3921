"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.answers import Answer, shows_as_drawn, whole
from dsr.serve.anthropic.errors import error_body
from dsr.serve.anthropic.from_api import count_ask, messages_ask
from dsr.serve.anthropic.schema import CountBody, MessagesBody
from dsr.serve.ask import Ask
from dsr.serve.http.body import parsed, read_json
from dsr.serve.http.errors import fault_of
from dsr.serve.http.server import Server
from dsr.serve.http.streams import comment, event, event_stream, unless_gone
from dsr.serve.http.unread import unknown_fields, unread_fields
from dsr.serve.pool.engine import EngineProcess
from dsr.serve.told import Begun, Ended, Told
from runtime.base.events import TextDrawn, ToolCallGrew

_STOPS = {"stop": "end_turn", "length": "max_tokens", "cut": "end_turn", "cancelled": "end_turn"}


async def messages(request: Request, server: Server) -> Response:
    body, unknown = parsed(MessagesBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    ask = messages_ask(body, named, server.client(request))
    reply = MessageReply(body.model or named.shown, ask)
    headers = partial(unread_fields, server, named.model.reference, unknown, ask, "output_config.effort")
    if body.stream:
        return await event_stream(server, named.model.reference, reply.stream, _fail, headers=headers)
    async with server.pool.engine(named.model.reference) as engine:
        answer = await unless_gone(request, whole(engine, ask))
    return JSONResponse(reply.whole(answer), headers=headers())


async def count_tokens(request: Request, server: Server) -> Response:
    body, unknown = parsed(CountBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    async with server.pool.engine(named.model.reference) as engine:
        count = await engine.query("count", {"ask": count_ask(body).wire()})
    return JSONResponse({"input_tokens": count}, headers=unknown_fields(unknown))


def _event(kind: str, **fields: Any) -> str:
    return event({"type": kind, **fields}, kind)


def _fail(error: Exception) -> str:
    return event(error_body(fault_of(error)), "error")


@dataclass(slots=True)
class MessageReply:
    """Writes the reply to one request, whole or as events of blocks."""

    model: str
    ask: Ask
    id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")
    _open: str = ""  # what the open block holds: "thinking", "text" or "call N"
    _blocks: int = 0

    def whole(self, answer: Answer) -> dict[str, Any]:
        sample = answer.samples[0] if answer.samples else None
        own = {"dsr": {"verdict": answer.decided.verdict}} if answer.decided is not None else {}
        return {
            **self._frame(answer),
            "content": [] if sample is None else _content(sample),
            **_stop(sample),
            **own,
        }

    def _frame(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(answer),
        }

    async def stream(self, engine: EngineProcess) -> AsyncIterator[str]:
        answer = Answer()
        at_once = shows_as_drawn(self.ask)
        async for come in engine.ask(self.ask):
            parts: list[str] = []
            for told in come:
                answer.add(told)
                if isinstance(told, Begun):
                    parts.append(_event("message_start", message=self._frame(answer)))
                if self.ask.strategy:
                    parts.append(comment(told))
                if at_once:
                    parts += self._as_drawn(told)
            if text := "".join(parts):
                yield text
        sample = answer.samples[0] if answer.samples else None
        if sample is not None and not at_once:
            yield "".join(self._at_the_end(sample))
        yield "".join(self._end(answer, sample))

    def _as_drawn(self, told: Told) -> Iterator[str]:
        if isinstance(told, TextDrawn) and told.part == "thinking":
            yield from self._grow("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": told.text})
        elif isinstance(told, TextDrawn):
            yield from self._grow("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": told.text})
        elif isinstance(told, ToolCallGrew):
            block = {"type": "tool_use", "id": told.id, "name": told.name, "input": {}}
            yield from self._grow(f"call {told.index}", block)
            yield self._delta({"type": "input_json_delta", "partial_json": told.arguments})

    def _at_the_end(self, sample: Ended) -> Iterator[str]:
        if sample.thinking:
            yield from self._as_drawn(TextDrawn(0, "thinking", sample.thinking))
        if sample.answer:
            yield from self._as_drawn(TextDrawn(0, "answer", sample.answer))

    def _grow(self, what: str, block: dict[str, Any]) -> Iterator[str]:
        """Open the block that grows now, unless it is open."""
        if self._open == what:
            return
        yield from self._close()
        self._open = what
        yield event(
            {"type": "content_block_start", "index": self._blocks, "content_block": block}, "content_block_start"
        )

    def _delta(self, delta: dict[str, Any]) -> str:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _close(self) -> Iterator[str]:
        if not self._open:
            return
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": ""})
        yield _event("content_block_stop", index=self._blocks)
        self._open = ""
        self._blocks += 1

    def _end(self, answer: Answer, sample: Ended | None) -> Iterator[str]:
        if sample is not None and not sample.answer and not sample.calls:
            yield from self._grow("text", {"type": "text", "text": ""})
        yield from self._close()
        yield _event("message_delta", delta=_stop(sample), usage=_usage(answer))
        yield _event("message_stop")


def _content(sample: Ended) -> list[dict[str, Any]]:
    thought = [{"type": "thinking", "thinking": sample.thinking, "signature": ""}] if sample.thinking else []
    # A call without its end has no input that a program may use.
    calls = [
        {"type": "tool_use", "id": each.id, "name": each.name, "input": each.values}
        for each in sample.calls
        if each.complete
    ]
    text = [{"type": "text", "text": sample.answer}] if sample.answer or not calls else []
    return [*thought, *text, *calls]


def _stop(sample: Ended | None) -> dict[str, str | None]:
    """Why the message ended, and the stop sequence that ended it."""
    if sample is None:
        return {"stop_reason": "end_turn", "stop_sequence": None}
    if sample.stop_string:
        return {"stop_reason": "stop_sequence", "stop_sequence": sample.stop_string}
    called = sample.calls and sample.finish_reason == "stop"
    return {"stop_reason": "tool_use" if called else _STOPS[sample.finish_reason], "stop_sequence": None}


def _usage(answer: Answer) -> dict[str, int]:
    """`input_tokens` are those that were read now; those from the cache are counted apart, as Anthropic does."""
    return {
        "input_tokens": max(0, answer.prompt_tokens - answer.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached,
        "output_tokens": answer.drawn,
    }
