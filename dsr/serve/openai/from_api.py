"""Bodies of OpenAI's API become asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from dsr.models.sampling import SamplingRequest
from dsr.serve.ask import Ask
from dsr.serve.formats import form_of, grammar_of
from dsr.serve.http.errors import Refused
from dsr.serve.http.refusals import refuse
from dsr.serve.names import Named
from dsr.serve.openai.schema import ChatBody, ChatMessage, Drawing, Effort
from dsr.serve.openai.tools import calls_of, tool_use
from dsr.serve.own_field import DsrOptions, strategy_of
from dsr.serve.shared_fields import seed_of, stops_of, token_of
from runtime.base.types import Message, Role
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.tool_use import ToolUse

_ROLES: dict[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_EFFORTS = {"xhigh": "max"}
TIERS = (None, "auto", "default")
_NO_LIMIT = -1  # of tokens, as llama-server and LM Studio write it


def chat_ask(body: ChatBody, named: Named, client: str) -> Ask:
    """Raises Refused, UsageError."""
    _refuse(body)
    own = body.dsr or DsrOptions()
    strategy, settings = strategy_of(own, named)
    options = _options(body, own)
    refuse(("messages", strategy and options.continues, "a strategy answers a question, and the last message is none"))
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return Ask(
        messages=tuple(message_of(each, f"messages.{number}") for number, each in enumerate(body.messages)),
        sampling=replace(sampling_of(body, most, own.think_budget), top_logprobs=_top_logprobs(body)),
        options=options,
        samples=body.n or 1,
        strategy=strategy,
        settings=settings,
        tools=_tools(body),
        grammar=grammar_of(body.response_format, body.json_schema, body.grammar),
        form=form_of(body.response_format, body.json_schema, body.grammar),
        client=client,
        seconds=own.timeout,
    )


def _refuse(body: ChatBody) -> None:
    """Raises Refused for what dsr does not do."""
    refuse_drawing(body)
    refuse(
        ("modalities", body.modalities not in (None, [], ["text"]), "dsr answers in text"),
        ("audio", body.audio is not None, "dsr answers in text"),
        ("functions", body.functions, "out of use; send tools"),
        ("function_call", body.function_call is not None, "out of use; send tool_choice"),
        ("moderation", body.moderation is not None, "dsr moderates nothing"),
        ("prediction", body.prediction is not None, "dsr takes no predicted answer"),
        ("store", body.store, "dsr keeps no answers of this route; /v1/responses does"),
        ("verbosity", body.verbosity not in (None, "medium"), "no model here has levels of verbosity"),
        ("web_search_options", body.web_search_options is not None, "dsr searches nothing"),
    )


def refuse_drawing(body: Drawing) -> None:
    """Raises Refused for what no route that draws does."""
    streaming = body.stream_options
    refuse(
        ("service_tier", body.service_tier not in TIERS, "dsr has one tier; send auto or default"),
        ("stream_options.include_obfuscation", streaming and streaming.include_obfuscation, "dsr adds no padding"),
    )


def _top_logprobs(body: ChatBody) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise Refused(400, "top_logprobs needs logprobs: true", place="top_logprobs")
    return body.top_logprobs or 0 if body.logprobs else None


def _tools(body: ChatBody) -> ToolUse | None:
    return tool_use(body.tools, body.tool_choice, body.parallel_tool_calls)


def _options(body: ChatBody, own: DsrOptions) -> PromptOptions:
    """llama-server and vLLM let a request set variables of the template; dsr knows those about thinking."""
    given = dict(body.chat_template_kwargs or {})
    wishes = [given.pop(name) for name in ("enable_thinking", "thinking") if name in given]
    effort = given.pop("reasoning_effort", None)
    place = "chat_template_kwargs"
    refuse(*((f"{place}.{name}", True, "dsr sets enable_thinking and reasoning_effort") for name in given))
    refuse(
        (f"{place}.enable_thinking", any(not isinstance(each, bool) for each in wishes), "true or false"),
        (f"{place}.reasoning_effort", effort is not None and effort not in get_args(Effort), "a level of effort"),
    )
    options = options_of(body.reasoning_effort or effort, own)
    options = replace(options, continues=options.continues or _continues(body))
    return replace(options, thinking=wishes[0]) if wishes and options.thinking is None else options


def _continues(body: ChatBody) -> bool:
    """Whether the last message is an answer that goes on, as in llama-server and vLLM (continue_final_message)."""
    *before, last = body.messages
    answers = last.role == "assistant" and not last.tool_calls
    twice = answers and bool(before) and before[-1].role == "assistant" and not before[-1].tool_calls
    wish = body.continue_final_message
    refuse(
        ("messages", twice, "two answers at the end; send one"),
        (
            "continue_final_message",
            wish and body.add_generation_prompt,
            "an answer goes on or begins, not both",
        ),
        ("continue_final_message", wish and not answers, "the last message is no answer"),
        ("add_generation_prompt", body.add_generation_prompt is False and not answers, "dsr asks for an answer"),
    )
    return answers and wish is not False and not (body.add_generation_prompt and wish is None)


def options_of(effort: str | None, own: DsrOptions) -> PromptOptions:
    """Effort "none" is no thought; "xhigh" is what dsr calls max."""
    options = PromptOptions(thinking=own.think, keep_thoughts=own.keep_thoughts, continues=own.continues)
    if effort == "none":
        return replace(options, thinking=False)
    return replace(options, effort=_EFFORTS.get(effort, effort) if effort is not None else None)


def message_of(given: ChatMessage, place: str) -> Message:
    role = _ROLES.get(given.role)
    if role is None:
        raise Refused(400, f"{place}.role: {given.role} is out of use, send the role tool", place=f"{place}.role")
    return Message(
        role,
        text_of(given.content, f"{place}.content"),
        given.reasoning_content or given.reasoning or "",
        calls=calls_of(given.tool_calls, f"{place}.tool_calls"),
        call_id=given.tool_call_id or "",
        name=(given.name or "") if role == "tool" else "",
    )


def text_of(content: str | list[dict[str, Any]] | None, place: str) -> str:
    """The text of a message, also in parts. Raises Refused for parts that are no text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type")
        if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
            raise Refused(400, f"{place}.{number}: dsr reads text, not {kind}", place=f"{place}.{number}")
        texts.append(part["text"])
    return "\n".join(texts)


def sampling_of(body: Drawing, most_tokens: int | None, think_budget: int | None = None) -> SamplingRequest:
    given = (body.logit_bias or {}).items()
    biases = tuple((token_of(key), bias) for key, bias in given)
    return SamplingRequest(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repeat_penalty=body.repeat_penalty,
        typical_p=body.typical_p,
        seed=seed_of(body.seed),
        max_tokens=None if most_tokens == _NO_LIMIT else most_tokens,
        think_budget=think_budget,
        stop=stops_of(body.stop),
        logit_bias=biases or None,
    )
