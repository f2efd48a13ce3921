"""Bodies of Ollama's API become asks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dsr.models.sampling import SamplingRequest
from dsr.serve.ask import Ask
from dsr.serve.duration import seconds_in
from dsr.serve.formats import schema_grammar
from dsr.serve.http.errors import Refused
from dsr.serve.http.refusals import refuse
from dsr.serve.names import Named
from dsr.serve.ollama.schema import ChatBody, ChatMessage, Drawing, GenerateBody, Options
from dsr.serve.openai.tools import tool_of
from dsr.serve.own_field import DsrOptions, strategy_of
from dsr.serve.shared_fields import seed_of
from runtime.base.types import Message, ToolCall
from runtime.engine.grammar import JSON_OBJECT, Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.tool_use import ToolUse

_FOR_EVER = 1e9  # seconds, some thirty years: a date far behind them cannot be told


def chat_ask(body: ChatBody, named: Named, client: str) -> Ask:
    """Raises Refused, UsageError."""
    said = tuple(_message(each, f"messages.{number}") for number, each in enumerate(body.messages))
    tools = ToolUse(tuple(tool_of(each, f"tools.{number}") for number, each in enumerate(body.tools or ())))
    return replace(_ask(body, named, client, said), tools=tools if body.tools else None)


def generate_ask(body: GenerateBody, named: Named, client: str) -> Ask:
    """Raises Refused, UsageError."""
    refuse(
        ("suffix", body.suffix, "dsr does not write between two texts"),
        ("template", body.template, "dsr uses the template of the model"),
        ("context", body.context, "dsr keeps no tokens of earlier answers; send /api/chat the conversation"),
        ("images", body.images, "dsr reads text, not images"),
        ("system", body.raw and body.system, "a raw prompt has no system message"),
        ("think", body.raw and body.think is not None, "a raw prompt has no thought"),
    )
    said = (Message("system", body.system),) if body.system else ()
    ask = _ask(body, named, client, (*said, Message("user", body.prompt)))
    return replace(ask, messages=(), prompt=body.prompt) if body.raw else ask


def _ask(body: Drawing, named: Named, client: str, said: tuple[Message, ...]) -> Ask:
    refuse(
        ("truncate", body.truncate, "dsr cuts no conversations; send a shorter one"),
        ("shift", body.shift, "dsr forgets no part of a conversation; send a shorter one"),
        ("top_logprobs", body.top_logprobs and not body.logprobs, "needs logprobs: true"),
    )
    own = body.dsr or DsrOptions()
    strategy, settings = strategy_of(own, named)
    effort = body.think if isinstance(body.think, str) else None
    return Ask(
        messages=said,
        sampling=replace(
            _sampling(body.options or Options(), own.think_budget),
            top_logprobs=body.top_logprobs or 0 if body.logprobs else None,
        ),
        options=PromptOptions(
            thinking=body.think if isinstance(body.think, bool) else own.think,
            effort=effort,
            keep_thoughts=own.keep_thoughts,
            continues=own.continues or (bool(said) and said[-1].role == "assistant"),
        ),
        strategy=strategy,
        settings=settings,
        grammar=_grammar(body.format),
        client=client,
        seconds=own.timeout,
    )


def _sampling(options: Options, think_budget: int | None) -> SamplingRequest:
    refuse(
        ("options.mirostat", options.mirostat, "dsr does not have this sampler"),
        ("options.tfs_z", options.tfs_z not in (None, 1.0), "dsr does not have this sampler"),
    )
    stop = [options.stop] if isinstance(options.stop, str) else options.stop or []
    most = options.num_predict
    return SamplingRequest(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        typical_p=options.typical_p,
        seed=seed_of(options.seed),
        max_tokens=None if most is None or most < 0 else most,
        think_budget=think_budget,
        stop=tuple(stop),
        penalty_last_n=options.repeat_last_n,
        repeat_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
    )


def _grammar(given: str | dict[str, Any] | None) -> Grammar | None:
    """ "json", or a schema. Raises Refused."""
    if not given:
        return None
    if isinstance(given, str) and given != "json":
        raise Refused(400, 'format: "json" or a JSON Schema', place="format")
    return JSON_OBJECT if isinstance(given, str) else schema_grammar(given, "format")


def _message(given: ChatMessage, place: str) -> Message:
    if given.images:
        raise Refused(400, f"{place}.images: dsr reads text, not images", place=f"{place}.images")
    calls = tuple(
        ToolCall(each.id or f"call_{number}", each.function.name, json.dumps(each.function.arguments))
        for number, each in enumerate(given.tool_calls or ())
    )
    return Message(
        given.role,
        given.content,
        given.thinking or "",
        calls=calls,
        call_id=given.tool_call_id or "",
        name=given.tool_name or "",
    )


def seconds_of(keep_alive: int | float | str | None) -> float | None:
    """0 lets the model leave at once, a negative value keeps it. None where nothing is asked. Raises Refused."""
    if keep_alive is None:
        return None
    seconds = _written(keep_alive) if isinstance(keep_alive, str) else keep_alive
    return seconds if seconds < _FOR_EVER else -1.0


def _written(keep_alive: str) -> float:
    text = keep_alive.strip()
    seconds = seconds_in(text.removeprefix("-"))
    if seconds is None:
        raise Refused(400, f'keep_alive: a time such as "5m" or 300, not {keep_alive[:40]!r}', place="keep_alive")
    return -seconds if text.startswith("-") else seconds
