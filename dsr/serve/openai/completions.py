"""POST /v1/completions: text that goes on, without a chat template."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.answers import Answer, all_whole
from dsr.serve.ask import Ask
from dsr.serve.formats import grammar_of
from dsr.serve.http.body import Many, parsed, read_json
from dsr.serve.http.errors import Refused
from dsr.serve.http.refusals import refuse
from dsr.serve.http.server import Server
from dsr.serve.http.streams import event, event_stream, unless_gone
from dsr.serve.http.unread import unknown_fields
from dsr.serve.names import Named
from dsr.serve.openai.chat import FINGERPRINT, fail
from dsr.serve.openai.from_api import refuse_drawing, sampling_of
from dsr.serve.openai.schema import Drawing
from dsr.serve.pool.engine import EngineProcess
from dsr.serve.timings import timings_json
from dsr.serve.told import Ended
from runtime.base.events import TextDrawn, TokenDrawn

_MOST_PROMPTS = 64
_USUAL_TOKENS = 16  # OpenAI's default for this route


class CompletionsBody(Drawing):
    prompt: str | Many[str] | Many[int] | Many[Many[int]]
    echo: bool | None = False
    best_of: int | None = None
    suffix: str | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None


async def completions(request: Request, server: Server) -> Response:
    body, unknown = parsed(CompletionsBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    _refuse(body, named)
    reply = _Reply(body, body.model or named.shown, _asks(body, server.client(request)))
    headers = partial(unknown_fields, unknown)
    if body.stream:
        return await event_stream(server, named.model.reference, reply.stream, fail, headers=headers)
    async with server.pool.engine(named.model.reference) as engine:
        work = all_whole(engine, reply.asks)
        return JSONResponse(reply.whole(await unless_gone(request, work)), headers=headers())


def _refuse(body: CompletionsBody, named: Named) -> None:
    """Raises Refused for what dsr does not do."""
    refuse_drawing(body)
    tokens = not isinstance(body.prompt, str) and any(not isinstance(each, str) for each in body.prompt)
    refuse(
        ("model", named.strategy, "a strategy answers a conversation, not a plain prompt"),
        ("dsr", body.dsr is not None, "a plain prompt has neither strategies nor thoughts"),
        ("suffix", body.suffix, "dsr does not write between two texts"),
        ("best_of", body.best_of not in (None, body.n or 1), "dsr returns each answer that it draws; send n"),
        ("echo", body.echo and body.logprobs is not None, "dsr does not tell the logprobs of prompts"),
        ("echo", body.echo and tokens, "dsr repeats prompts that are text, not tokens"),
    )


def _asks(body: CompletionsBody, client: str) -> list[Ask]:
    """One for each prompt. Raises Refused, UsageError."""
    sampling = replace(
        sampling_of(body, body.max_tokens if body.max_tokens is not None else _USUAL_TOKENS),
        top_logprobs=body.logprobs,
    )
    grammar = grammar_of(None, body.json_schema, body.grammar)
    prompts = _prompts(body.prompt)
    if not 1 <= len(prompts) <= _MOST_PROMPTS:
        raise Refused(400, f"prompt: 1 to {_MOST_PROMPTS} prompts, not {len(prompts)}", place="prompt")
    asked = Ask(
        prompt="",
        sampling=sampling,
        samples=body.n or 1,
        grammar=grammar,
        client=client,
        seconds=body.dsr.timeout if body.dsr is not None else None,
    )
    return [replace(asked, prompt=each) for each in prompts]


def _prompts(given: str | list[str] | list[int] | list[list[int]]) -> list[str | tuple[int, ...]]:
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [tuple(token for token in given if isinstance(token, int))]
    return [each if isinstance(each, str) else tuple(each) for each in given if not isinstance(each, int)]


@dataclass(slots=True)
class _Reply:
    """Writes the reply. Choices are numbered prompt by prompt."""

    body: CompletionsBody
    model: str
    asks: list[Ask]
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answers: list[Answer]) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for ask, answer in zip(self.asks, answers, strict=True):
            for sample in answer.samples:
                tokens = answer.tokens.get(sample.sample, ())
                choices.append(self._choice(len(choices), self._echoed(ask) + sample.answer, sample, tokens))
        return {**self._frame(), "choices": choices, "usage": _usage(answers), **timings_json(*answers)}

    async def stream(self, engine: EngineProcess) -> AsyncIterator[str]:
        answers = []
        for number, ask in enumerate(self.asks):
            answer = Answer()
            answers.append(answer)
            begun: set[int] = set()
            tokens: dict[int, list[TokenDrawn]] = {}
            offsets: dict[int, int] = {}
            async with aclosing(engine.ask(ask)) as coming:  # type: ignore[type-var]
                async for come in coming:
                    parts = []
                    for told in come:
                        answer.add(told)
                        if isinstance(told, TokenDrawn):
                            tokens.setdefault(told.sample, []).append(told)
                        elif isinstance(told, (TextDrawn, Ended)):
                            text = told.text if isinstance(told, TextDrawn) else ""
                            if told.sample not in begun:
                                begun.add(told.sample)
                                text = self._echoed(ask) + text
                            index = number * ask.samples + told.sample
                            ended = told if isinstance(told, Ended) else None
                            offset = offsets.get(told.sample, 0)
                            choice = self._choice(index, text, ended, tokens.pop(told.sample, ()), offset)
                            offsets[told.sample] = offset + len(text)
                            parts.append(event({**self._frame(), "choices": [choice]}))
                    if parts:
                        yield "".join(parts)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield event({**self._frame(), "choices": [], "usage": _usage(answers), **timings_json(*answers)})
        yield event("[DONE]")

    def _echoed(self, ask: Ask) -> str:
        return ask.prompt if self.body.echo and isinstance(ask.prompt, str) else ""

    def _choice(
        self, index: int, text: str, ended: Ended | None, tokens: Iterable[TokenDrawn], offset: int = 0
    ) -> dict[str, Any]:
        """`offset`: characters of the answer before `text`."""
        finish = None if ended is None else "length" if ended.finish_reason == "length" else "stop"
        probabilities = _logprobs(tokens, offset) if self.body.logprobs is not None else None
        return {"index": index, "text": text, "logprobs": probabilities, "finish_reason": finish}

    def _frame(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }


def _logprobs(tokens: Iterable[TokenDrawn], offset: int) -> dict[str, Any]:
    """The older form: lists side by side."""
    rows = list(tokens)
    texts = [each.piece.decode("utf-8", "replace") for each in rows]
    starts = [*accumulate(map(len, texts), initial=offset)][:-1]
    top = [{other.piece.decode("utf-8", "replace"): other.logprob for other in each.top} for each in rows]
    probabilities = [each.logprob for each in rows]
    return {"tokens": texts, "token_logprobs": probabilities, "top_logprobs": top, "text_offset": starts}


def _usage(answers: list[Answer]) -> dict[str, Any]:
    read, drawn = sum(each.prompt_tokens for each in answers), sum(each.drawn for each in answers)
    cached = sum(each.cached for each in answers)
    return {
        "prompt_tokens": read,
        "completion_tokens": drawn,
        "total_tokens": read + drawn,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
