"""POST /completion, also as /completions: text that goes on, in llama-server's own form."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.chat.logprobs import chat_logprobs
from dsr.serve.answers import Answer, all_whole
from dsr.serve.ask import Ask
from dsr.serve.http.body import parsed, read_json
from dsr.serve.http.errors import Refused
from dsr.serve.http.server import Server
from dsr.serve.http.streams import event, event_stream, unless_gone
from dsr.serve.http.unread import unknown_fields
from dsr.serve.llama_server.from_api import Mixed, completion_ask, prompts_of, told_fields
from dsr.serve.llama_server.schema import CompletionBody
from dsr.serve.llama_server.settings import settings_json
from dsr.serve.openai.chat import fail
from dsr.serve.pool.engine import EngineProcess
from dsr.serve.timings import RunningTimes, timings
from dsr.serve.told import Begun, Ended, Told
from runtime.base.events import Progress, TextDrawn, TokenDrawn

_NO_SLOT = -1  # an answer has no slot of its own


async def completion(request: Request, server: Server) -> Response:
    body, unknown = parsed(CompletionBody, await read_json(request, server.limits))
    named = await server.named(body.model)
    if named.strategy:
        raise Refused(400, "model: a strategy answers a conversation, not a plain prompt", place="model")
    prompts, many = prompts_of(body.prompt)
    reply = _Reply(body, body.model or named.shown, completion_ask(body, server.client(request)), prompts, many)
    headers = partial(unknown_fields, told_fields(body, unknown))
    if body.stream:
        return await event_stream(server, named.model.reference, reply.stream, fail, headers=headers)
    async with server.pool.engine(named.model.reference) as engine:
        return JSONResponse(await unless_gone(request, reply.whole(engine)), headers=headers())


@dataclass(slots=True)
class _Reply:
    """Writes the reply. Completions are numbered prompt by prompt."""

    body: CompletionBody
    model: str
    asked: Ask
    prompts: Sequence[str | Mixed]
    many: bool
    now: Callable[[], float] = time.monotonic

    async def whole(self, engine: EngineProcess) -> Any:
        """One completion, or a list for several prompts or several completions of one."""
        asks = [await self._ask(engine, prompt) for prompt in self.prompts]
        answers = await all_whole(engine, asks)
        written: list[dict[str, Any]] = []
        for ask, answer in zip(asks, answers, strict=True):
            text = await _text_of(engine, ask.prompt)
            for sample in answer.samples:
                tokens = answer.tokens.get(sample.sample, [])
                final = self._final(len(written), text, answer, sample, tokens)
                written.append(_chosen(final, self.body.response_fields))
        return written if self.many or len(written) > 1 else written[0]

    async def stream(self, engine: EngineProcess) -> AsyncIterator[str]:
        for number, prompt in enumerate(self.prompts):
            ask = await self._ask(engine, prompt)
            writer = _StreamWriter(self.body, number * ask.samples, self.now)
            answer = Answer()
            async with aclosing(engine.ask(ask)) as coming:  # type: ignore[type-var]
                async for come in coming:
                    parts = []
                    for told in come:
                        answer.add(told)
                        parts += writer.chunks(told)
                        if isinstance(told, Ended):
                            text = await _text_of(engine, ask.prompt)
                            final = self._final(number * ask.samples + told.sample, text, answer, told, None)
                            parts.append(_chosen(final, self.body.response_fields))
                    if parts:
                        yield "".join(map(event, parts))

    async def _ask(self, engine: EngineProcess, prompt: str | Mixed) -> Ask:
        ask = replace(self.asked, prompt=await _resolved(engine, prompt))
        if not self.body.ignore_eos:
            return ask
        if "ends" not in engine.props:  # finding them takes a tenth of a second
            engine.props["ends"] = await engine.query("ends", {})
        ends = tuple((token, -math.inf) for token in engine.props["ends"])
        return replace(ask, sampling=replace(ask.sampling, logit_bias=(*(ask.sampling.logit_bias or ()), *ends)))

    def _final(
        self, index: int, text: str, answer: Answer, sample: Ended, tokens: Sequence[TokenDrawn] | None
    ) -> dict[str, Any]:
        """The last object of a completion; `tokens` are None in a stream, which had them before."""
        nothing = 0 in (self.body.n_predict, self.body.max_tokens)
        if nothing:
            sample, tokens = replace(sample, answer="", tokens=0, finish_reason="length"), tokens and []
        most = self.asked.sampling.max_tokens
        begun = answer.begun
        limit = 0 if nothing else most
        settings = {} if begun is None else settings_json(begun.sampling, begun.seed, limit)
        written = {
            "index": index,
            "content": sample.answer if tokens is not None else "",
            "tokens": [each.token for each in tokens or ()] if self.body.return_tokens else [],
            "id_slot": _NO_SLOT,
            "stop": True,
            "model": self.model,
            "tokens_predicted": sample.tokens,
            "tokens_evaluated": answer.prompt_tokens,
            "generation_settings": {**settings, **self._asked_settings()},
            "prompt": text,
            "has_new_line": "\n" in sample.answer,
            "truncated": sample.finish_reason == "length" and not nothing and (most is None or sample.tokens < most),
            "stop_type": _stop_type(sample),
            "stopping_word": sample.stop_string,
            "tokens_cached": sample.cached,
            "timings": timings(answer.prompt_tokens, sample),
        }
        if tokens and self.body.n_probs:
            written["completion_probabilities"] = chat_logprobs(tokens)["content"]
        return written

    def _asked_settings(self) -> dict[str, Any]:
        """The settings that are the request's own."""
        return {
            "stop": [*self.asked.sampling.stop],
            "ignore_eos": self.body.ignore_eos,
            "stream": self.body.stream,
            "n_probs": self.body.n_probs or 0,
            "grammar": self.body.grammar or "",
            "timings_per_token": self.body.timings_per_token,
        }


@dataclass(slots=True)
class _StreamWriter:
    """The objects of a stream before the last one of each completion."""

    body: CompletionBody
    first_index: int
    now: Callable[[], float]
    _times: RunningTimes = field(default_factory=RunningTimes)
    _tokens: dict[int, list[TokenDrawn]] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)
    _prompt_tokens: int = 0

    def chunks(self, told: Told) -> list[dict[str, Any]]:
        self._times.add(told, self.now())
        if isinstance(told, Begun):
            self._prompt_tokens = told.prompt_tokens
        elif isinstance(told, TokenDrawn):
            self._tokens.setdefault(told.sample, []).append(told)  # they go with the text that they complete
            self._counts[told.sample] = self._counts.get(told.sample, 0) + 1
        elif isinstance(told, TextDrawn) and 0 not in (self.body.n_predict, self.body.max_tokens):
            return [self._chunk(told.sample, told.text)]
        elif isinstance(told, Ended) and self._tokens.get(told.sample):
            return [self._chunk(told.sample, "")]
        elif isinstance(told, Progress) and self.body.return_progress:
            return [{**self._chunk(0, ""), "prompt_progress": self._times.progress}]
        return []

    def _chunk(self, sample: int, text: str) -> dict[str, Any]:
        tokens = self._tokens.pop(sample, [])
        chunk: dict[str, Any] = {
            "index": self.first_index + sample,
            "content": text,
            "tokens": [each.token for each in tokens],
            "stop": False,
            "id_slot": _NO_SLOT,
            "tokens_predicted": self._counts.get(sample, 0),
            "tokens_evaluated": self._prompt_tokens,
        }
        if self.body.timings_per_token:
            chunk["timings"] = self._times.json
        if tokens and self.body.n_probs:
            chunk["completion_probabilities"] = chat_logprobs(tokens)["content"]
        return chunk


async def _resolved(engine: EngineProcess, prompt: str | Mixed) -> str | tuple[int, ...]:
    """The prompt as the engine takes it: one text, or tokens alone."""
    if isinstance(prompt, str):
        return prompt
    tokens: list[int] = []
    for number, part in enumerate(prompt):
        if isinstance(part, str):
            tokens += await engine.query("tokenize", {"text": part, "add_bos": number == 0})
        else:
            tokens.append(part)
    return tuple(tokens)


async def _text_of(engine: EngineProcess, prompt: str | tuple[int, ...] | None) -> str:
    if prompt is None or isinstance(prompt, str):
        return prompt or ""
    text: str = await engine.query("detokenize", {"tokens": [*prompt]})
    return text


def _stop_type(sample: Ended) -> str:
    if sample.stop_string:
        return "word"
    return "limit" if sample.finish_reason == "length" else "eos"


def _chosen(written: Mapping[str, Any], fields: Iterable[str] | None) -> dict[str, Any]:
    """The wanted fields; "a/b" is the field b of a, under that name. All of them where none is named."""
    if not fields:
        return dict(written)
    found: dict[str, Any] = {}
    for path in fields:
        value: Any = written
        for key in path.split("/"):
            value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            found[path] = value
    return found


_MISSING = object()
