"""POST /v1/responses, whole or as events; GET and DELETE of what it kept."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.chat.logprobs import chat_logprobs
from dsr.serve.answers import Answer, shows_as_drawn, whole
from dsr.serve.ask import Ask
from dsr.serve.http.body import parsed, read_json
from dsr.serve.http.errors import fault_of
from dsr.serve.http.server import Server
from dsr.serve.http.streams import comment, event, event_stream, unless_gone
from dsr.serve.http.unread import unread_fields
from dsr.serve.openai.errors import error_body
from dsr.serve.openai.kept_responses import KeptResponse, KeptResponses
from dsr.serve.openai.responses_from import LOGPROBS, SEALED_THOUGHTS, conversation_of, responses_ask, sealed
from dsr.serve.openai.responses_schema import ResponsesBody
from dsr.serve.pool.engine import EngineProcess
from dsr.serve.told import Ended, Told
from runtime.base.events import TextDrawn, TokenDrawn, ToolCallGrew
from runtime.base.types import Message


async def create_response(request: Request, server: Server) -> Response:
    body, unknown = parsed(ResponsesBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    before = server.responses.get(body.previous_response_id).said if body.previous_response_id else ()
    said = conversation_of(body, before)
    ask = responses_ask(body, named, said, server.client(request))
    reply = ResponseReply(body, body.model or named.shown, ask, said, server.responses)
    headers = partial(unread_fields, server, named.model.reference, unknown, ask, "reasoning.effort")
    if body.stream:
        return await event_stream(server, named.model.reference, reply.stream, reply.fail, headers=headers)
    async with server.pool.engine(named.model.reference) as engine:
        answer = await unless_gone(request, whole(engine, ask))
    return JSONResponse(reply.whole(answer), headers=headers())


async def show_response(request: Request, server: Server) -> Response:
    """Raises NotFound."""
    return JSONResponse(server.responses.get(request.path_params["id"]).body)


async def delete_response(request: Request, server: Server) -> Response:
    """Raises NotFound."""
    server.responses.drop(request.path_params["id"])
    return JSONResponse({"id": request.path_params["id"], "object": "response", "deleted": True})


@dataclass(slots=True)
class ResponseReply:
    """Writes one response, whole or as events of its items. `said` is the conversation that it answers."""

    body: ResponsesBody
    model: str
    ask: Ask
    said: tuple[Message, ...]
    kept: KeptResponses
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(16)}")
    created: float = field(default_factory=lambda: float(int(time.time())))
    _sequence: int = 0
    _items: list[dict[str, Any]] = field(default_factory=list)
    _tokens: list[TokenDrawn] = field(default_factory=list)
    _open: str = ""  # what grows: "reasoning", "message" or "call N"

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The finished response, kept for later ones unless the client does not want that."""
        sample = answer.samples[0] if answer.samples else None
        output = [] if sample is None else [self._finished_item(each, answer) for each in items_of(sample)]
        status = "incomplete" if sample is not None and sample.finish_reason == "length" else "completed"
        return self._finished(answer, sample, output, status)

    def _finished(
        self, answer: Answer, sample: Ended | None, output: list[dict[str, Any]], status: str
    ) -> dict[str, Any]:
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        own = {"dsr": {"verdict": answer.decided.verdict}} if answer.decided is not None else {}
        body = {
            **self._frame(status),
            "output": output,
            "incomplete_details": cut,
            "usage": _usage(answer),
            **own,
        }
        if self.body.store is not False and sample is not None:
            said = Message("assistant", sample.answer, sample.thinking, calls=sample.calls)
            self.kept.keep(KeptResponse(body, (*self.said, said)))
        return body

    def _frame(self, status: str) -> dict[str, Any]:
        body = self.body
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self.model,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "store": body.store is not False,
            "temperature": body.temperature,
            "text": {"format": (body.text.format if body.text else None) or {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": body.user,
            "metadata": body.metadata or {},
            "background": False,
            "service_tier": "default",
            "top_logprobs": body.top_logprobs or 0,
        }

    def _finished_item(self, item: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """An item with what the request asked to include."""
        included = self.body.include or ()
        if item["type"] == "reasoning" and SEALED_THOUGHTS in included:
            return {**item, "encrypted_content": sealed(item["content"][0]["text"])}
        if item["type"] == "message" and LOGPROBS in included:
            sample = answer.samples[0].sample if answer.samples else 0
            item["content"][0]["logprobs"] = chat_logprobs(answer.tokens.get(sample, ()))["content"]
        return item

    async def stream(self, engine: EngineProcess) -> AsyncIterator[str]:
        answer = Answer()
        at_once = shows_as_drawn(self.ask)
        begun = False
        async for come in engine.ask(self.ask):
            parts = []
            for told in come:
                answer.add(told)
                if not begun:
                    begun = True
                    parts.append(self._event("response.created", response=self._frame("in_progress")))
                    parts.append(self._event("response.in_progress", response=self._frame("in_progress")))
                if self.ask.strategy:
                    parts.append(comment(told))
                if at_once:
                    parts += self._as_drawn(told, answer)
            if text := "".join(parts):
                yield text
        sample = answer.samples[0] if answer.samples else None
        if sample is not None and not at_once:
            self._tokens = answer.tokens.get(sample.sample, [])
            yield "".join(self._at_the_end(sample, answer))
        yield "".join(self._end(answer, sample))

    def fail(self, error: Exception) -> str:
        """The event that ends a stream with an error."""
        said = error_body(fault_of(error))["error"]
        return self._event("error", code=str(said["code"]), message=said["message"], param=said["param"])

    def _as_drawn(self, told: Told, answer: Answer) -> Iterator[str]:
        if isinstance(told, TokenDrawn):
            self._tokens.append(told)  # they go with the text that they complete
        elif isinstance(told, TextDrawn) and told.part == "thinking":
            yield from self._grow("reasoning", _reasoning(""), answer)
            self._items[-1]["content"][0]["text"] += told.text
            yield self._delta("response.reasoning_text.delta", content_index=0, delta=told.text)
        elif isinstance(told, TextDrawn):
            yield from self._grow("message", _message(""), answer)
            self._items[-1]["content"][0]["text"] += told.text
            probabilities = chat_logprobs(self._tokens)["content"]
            self._tokens = []
            yield self._delta("response.output_text.delta", content_index=0, delta=told.text, logprobs=probabilities)
        elif isinstance(told, ToolCallGrew):
            yield from self._grow(f"call {told.index}", _call(told.id, told.name, ""), answer)
            self._items[-1]["arguments"] += told.arguments
            yield self._delta("response.function_call_arguments.delta", delta=told.arguments)

    def _at_the_end(self, sample: Ended, answer: Answer) -> Iterator[str]:
        if sample.thinking:
            yield from self._as_drawn(TextDrawn(0, "thinking", sample.thinking), answer)
        if sample.answer:
            yield from self._as_drawn(TextDrawn(0, "answer", sample.answer), answer)

    def _grow(self, what: str, item: dict[str, Any], answer: Answer) -> Iterator[str]:
        """Add the item that grows now, unless it is there."""
        if self._open == what:
            return
        yield from self._close("completed", answer)
        self._open = what
        self._items.append({**item, "status": "in_progress"})
        added = {**self._items[-1], "content": []} if "content" in item else self._items[-1]
        yield self._event("response.output_item.added", output_index=len(self._items) - 1, item=added)
        if "content" in item:
            yield self._delta("response.content_part.added", content_index=0, part=item["content"][0])

    def _close(self, status: str, answer: Answer) -> Iterator[str]:
        if not self._open:
            return
        self._open = ""
        item = self._items[-1] = {**self._items[-1], "status": status}
        if item["type"] == "function_call":
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield self._delta("response.function_call_arguments.done", **done)
        else:
            part = item["content"][0]
            kind = "reasoning_text" if item["type"] == "reasoning" else "output_text"
            item = self._items[-1] = self._finished_item(item, answer)
            logprobs = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
            yield self._delta(f"response.{kind}.done", content_index=0, text=part["text"], **logprobs)
            yield self._delta("response.content_part.done", content_index=0, part=part)
        yield self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _end(self, answer: Answer, sample: Ended | None) -> Iterator[str]:
        cut = sample is not None and sample.finish_reason == "length"
        status = "incomplete" if cut else "completed"
        if sample is not None and not self._items:
            yield from self._grow("message", _message(""), answer)
        yield from self._close(status, answer)
        yield self._event(f"response.{status}", response=self._finished(answer, sample, self._items, status))

    def _delta(self, kind: str, **fields: Any) -> str:
        """An event of the item that grows."""
        return self._event(kind, item_id=self._items[-1]["id"], output_index=len(self._items) - 1, **fields)

    def _event(self, kind: str, **fields: Any) -> str:
        number, self._sequence = self._sequence, self._sequence + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)


def items_of(sample: Ended) -> Iterator[dict[str, Any]]:
    """Thought, answer and calls as finished items. The last one is incomplete if the answer was cut."""
    items = [_reasoning(sample.thinking)] if sample.thinking else []
    items += [_message(sample.answer)] if sample.answer or not (sample.calls or items) else []
    items += [_call(call.id, call.name, call.arguments) for call in sample.calls]
    for number, item in enumerate(items, 1):
        cut = sample.finish_reason == "length" and number == len(items)
        yield {**item, "status": "incomplete" if cut else "completed"}


def _reasoning(text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": f"rs_{secrets.token_hex(12)}", "type": "reasoning", "summary": [], "content": content}


def _message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "content": content}


def _call(id: str, name: str, arguments: str) -> dict[str, Any]:
    number = f"fc_{secrets.token_hex(12)}"
    return {"id": number, "type": "function_call", "call_id": id, "name": name, "arguments": arguments}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": answer.cached, "cache_write_tokens": 0},
        "output_tokens": answer.drawn,
        "output_tokens_details": {"reasoning_tokens": answer.thought},
        "total_tokens": answer.prompt_tokens + answer.drawn,
    }
