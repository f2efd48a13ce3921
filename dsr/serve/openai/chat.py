"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr import __version__
from dsr.chat.logprobs import chat_logprobs
from dsr.serve.answers import Answer, shows_as_drawn, whole
from dsr.serve.ask import Ask
from dsr.serve.http.body import parsed, read_json
from dsr.serve.http.errors import fault_of
from dsr.serve.http.server import Server
from dsr.serve.http.streams import comment, event, event_stream, unless_gone
from dsr.serve.http.unread import unread_fields
from dsr.serve.openai.errors import error_body
from dsr.serve.openai.from_api import chat_ask
from dsr.serve.openai.schema import ChatBody
from dsr.serve.openai.tools import call_json
from dsr.serve.pool.engine import EngineProcess
from dsr.serve.timings import timings_json
from dsr.serve.told import Ended, Told
from runtime.base.events import TextDrawn, TokenDrawn, ToolCallGrew

FINGERPRINT = f"dsr-{__version__}"  # OpenAI's name for the version that made an answer


def finish_of(sample: Ended) -> str:
    """OpenAI's word for how a sample ended."""
    if sample.calls and sample.finish_reason == "stop":
        return "tool_calls"
    return "length" if sample.finish_reason == "length" else "stop"


async def chat_completions(request: Request, server: Server) -> Response:
    body, unknown = parsed(ChatBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    ask = chat_ask(body, named, server.client(request))
    reply = ChatReply(body.model or named.shown, ask, body.dsr is not None and body.dsr.events)
    headers = partial(unread_fields, server, named.model.reference, unknown, ask, "reasoning_effort")
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        make = partial(reply.stream, usage=usage)
        return await event_stream(server, named.model.reference, make, fail, headers=headers)
    async with server.pool.engine(named.model.reference) as engine:
        answer = await unless_gone(request, whole(engine, ask))
    return JSONResponse(reply.whole(answer), headers=headers())


def fail(error: Exception) -> str:
    """The event that ends a stream with an error."""
    return event(error_body(fault_of(error)))


@dataclass(slots=True)
class ChatReply:
    """Writes the reply to one request, whole or in chunks."""

    model: str
    ask: Ask
    events: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    _tokens: dict[int, list[TokenDrawn]] = field(default_factory=dict)
    _called: set[tuple[int, int]] = field(default_factory=set)

    def whole(self, answer: Answer) -> dict[str, Any]:
        choices = [self._choice(number, each, answer) for number, each in enumerate(answer.samples)]
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            "usage": usage_of(answer),
            **timings_json(answer),
            **self._own(answer),
        }

    def _choice(self, number: int, sample: Ended, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": sample.answer}
        if sample.thinking:
            message["reasoning_content"] = sample.thinking
        if sample.calls:
            message["content"] = sample.answer or None
            message["tool_calls"] = [call_json(each) for each in sample.calls]
        probabilities = chat_logprobs(answer.tokens.get(sample.sample, ())) if self._wants_logprobs else None
        return {"index": number, "message": message, "logprobs": probabilities, "finish_reason": finish_of(sample)}

    @property
    def _wants_logprobs(self) -> bool:
        return self.ask.sampling.top_logprobs is not None

    def _own(self, answer: Answer) -> dict[str, Any]:
        return {"dsr": {"verdict": answer.decided.verdict}} if answer.decided is not None else {}

    async def stream(self, engine: EngineProcess, usage: bool) -> AsyncIterator[str]:
        """The events of a streamed reply. dsr's own are comments, which other clients skip."""
        answer = Answer()
        at_once = shows_as_drawn(self.ask)
        own = self.events or bool(self.ask.strategy)
        roles = [self._chunk(number, {"role": "assistant", "content": None}) for number in range(self.ask.samples)]
        async for come in engine.ask(self.ask):
            parts, roles = roles, []  # not before the ask has begun: until then, an error has a status of its own
            for told in come:
                answer.add(told)
                if own:
                    parts.append(comment(told))
                if at_once:
                    parts.append(self._as_drawn(told))
            if text := "".join(parts):
                yield text
        if not at_once:
            for sample in answer.samples:
                self._tokens[0] = answer.tokens.get(sample.sample, [])
                yield "".join(self._at_the_end(sample))
        if own and answer.decided is not None:
            yield event({**self._frame(), "choices": [], **self._own(answer)})
        if usage:
            yield event({**self._frame(), "choices": [], "usage": usage_of(answer), **timings_json(answer)})
        yield event("[DONE]")

    def _as_drawn(self, told: Told) -> str:
        if isinstance(told, TokenDrawn):
            self._tokens.setdefault(told.sample, []).append(told)  # they go with the text that they complete
        elif isinstance(told, TextDrawn):
            name = "reasoning_content" if told.part == "thinking" else "content"
            return self._chunk(told.sample, {name: told.text})
        elif isinstance(told, ToolCallGrew):
            return self._chunk(told.sample, {"tool_calls": [self._call_delta(told)]})
        elif isinstance(told, Ended):
            return self._chunk(told.sample, {}, finish_of(told))
        return ""

    def _call_delta(self, told: ToolCallGrew) -> dict[str, Any]:
        """A call has its id and name in its first piece alone."""
        first = (told.sample, told.index) not in self._called
        self._called.add((told.sample, told.index))
        named = {"id": told.id, "type": "function"} if first else {}
        function = {"name": told.name, "arguments": told.arguments} if first else {"arguments": told.arguments}
        return {"index": told.index, **named, "function": function}

    def _at_the_end(self, sample: Ended) -> list[str]:
        chunks = [self._chunk(0, {"reasoning_content": sample.thinking})] if sample.thinking else []
        return [*chunks, self._chunk(0, {"content": sample.answer}), self._chunk(0, {}, finish_of(sample))]

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> str:
        tokens = self._tokens.pop(index, None)
        probabilities = chat_logprobs(tokens) if tokens else None
        choice = {"index": index, "delta": delta, "logprobs": probabilities, "finish_reason": finish}
        return event({**self._frame(), "choices": [choice]})

    def _frame(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }


def usage_of(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.drawn,
        "total_tokens": answer.prompt_tokens + answer.drawn,
        "prompt_tokens_details": {"cached_tokens": answer.cached},
        "completion_tokens_details": {"reasoning_tokens": answer.thought},
    }
