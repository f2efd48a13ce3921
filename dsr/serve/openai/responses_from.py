"""The body of POST /v1/responses becomes an ask."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dsr.models.sampling import SamplingRequest
from dsr.serve.ask import Ask
from dsr.serve.formats import grammar_of
from dsr.serve.http.errors import Refused
from dsr.serve.http.refusals import refuse
from dsr.serve.names import Named
from dsr.serve.openai.from_api import TIERS, options_of, text_of
from dsr.serve.openai.responses_schema import Item, Reasoning, ResponsesBody
from dsr.serve.openai.tools import tool_use
from dsr.serve.own_field import DsrOptions, strategy_of
from dsr.serve.shared_fields import seed_of
from runtime.base.types import Message, ToolCall
from runtime.engine.prompt_options import PromptOptions

LOGPROBS = "message.output_text.logprobs"
SEALED_THOUGHTS = "reasoning.encrypted_content"
# Clients that keep no responses on the server ask for thoughts in this form, and send them back.
_SEAL = "dsr1."


def responses_ask(body: ResponsesBody, named: Named, said: Sequence[Message], client: str) -> Ask:
    """The answer to the conversation `said`. Raises Refused, UsageError."""
    _refuse(body)
    own = body.dsr or DsrOptions()
    strategy, settings = strategy_of(own, named)
    return Ask(
        messages=_instructed(body.instructions, said),
        sampling=SamplingRequest(
            temperature=body.temperature,
            top_p=body.top_p,
            seed=seed_of(body.seed),
            max_tokens=body.max_output_tokens,
            think_budget=own.think_budget,
            top_logprobs=_top_logprobs(body),
        ),
        options=_options(body, own),
        strategy=strategy,
        settings=settings,
        tools=tool_use(body.tools, body.tool_choice, body.parallel_tool_calls),
        grammar=grammar_of(body.text.format if body.text is not None else None, place="text.format"),
        form="text.format",
        client=client,
        seconds=own.timeout,
    )


def _options(body: ResponsesBody, own: DsrOptions) -> PromptOptions:
    reasoning = body.reasoning or Reasoning()
    options = options_of(reasoning.effort, own)
    return replace(options, keep_thoughts=options.keep_thoughts or reasoning.context == "all_turns")


def _refuse(body: ResponsesBody) -> None:
    """Raises Refused for what dsr does not do."""
    text, reasoning, streaming = body.text, body.reasoning, body.stream_options
    refuse(
        ("background", body.background, "dsr answers at once"),
        ("conversation", body.conversation is not None, "dsr keeps none; send previous_response_id or input items"),
        ("prompt", body.prompt is not None, "dsr keeps no templates of prompts; send instructions and input"),
        ("truncation", body.truncation not in (None, "disabled"), "dsr cuts no conversations; send a shorter one"),
        ("max_tool_calls", body.max_tool_calls is not None, "dsr runs no tools"),
        ("service_tier", body.service_tier not in TIERS, "dsr has one tier; send auto or default"),
        ("text.verbosity", text and text.verbosity not in (None, "medium"), "no model here has levels of verbosity"),
        ("reasoning.summary", reasoning and reasoning.summary not in (None, "auto"), "dsr sends the thought itself"),
        ("reasoning.generate_summary", reasoning and reasoning.generate_summary, "out of use; dsr sends the thought"),
        ("reasoning.mode", reasoning and reasoning.mode not in (None, "standard"), "send dsr.strategy for a vote"),
        ("moderation", body.moderation is not None, "dsr moderates nothing"),
        ("context_management", body.context_management, "dsr cuts no conversations; send a shorter one"),
        ("stream_options.include_obfuscation", streaming and streaming.include_obfuscation, "dsr adds no padding"),
        ("top_logprobs", body.top_logprobs and not _wants_logprobs(body), f"add {LOGPROBS} to include"),
    )


def _wants_logprobs(body: ResponsesBody) -> bool:
    return LOGPROBS in (body.include or ())


def _top_logprobs(body: ResponsesBody) -> int | None:
    return body.top_logprobs or 0 if _wants_logprobs(body) else None


def conversation_of(body: ResponsesBody, before: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation of the previous response, and the new items. Raises Refused."""
    new = [Item(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    return tuple(_joined([*before, *_each(new)]))


def _instructed(instructions: str | None, said: Sequence[Message]) -> tuple[Message, ...]:
    """Instructions hold for one response alone. With a system message, they are one: templates know only one."""
    if not instructions:
        return tuple(said)
    first = said[0].content if said and said[0].role == "system" else ""
    system = Message("system", "\n\n".join(filter(None, (instructions, first))))
    return (system, *said[bool(first) :])


def _each(items: Sequence[Item]) -> Iterable[Message]:
    for number, item in enumerate(items):
        place = f"input.{number}"
        if item.type in (None, "message") and item.role is not None:
            role = "system" if item.role == "developer" else item.role
            yield Message(role, text_of(item.content, f"{place}.content"))
        elif item.type == "reasoning":
            yield Message("assistant", "", _thought(item, place))
        elif item.type == "function_call":
            call = ToolCall(item.call_id or f"call_{number}", item.name or "", item.arguments or "{}")
            yield Message("assistant", "", calls=(call,))
        elif item.type == "function_call_output":
            yield Message("tool", text_of(item.output, f"{place}.output"), call_id=item.call_id or "")
        else:
            raise Refused(400, f"{place}.type: dsr does not read {item.type}", place=f"{place}.type")


def _thought(item: Item, place: str) -> str:
    """Of a reasoning item that an answer had: its text, also as `encrypted_content`. Raises Refused."""
    if isinstance(item.content, list) and item.content:
        return "\n".join(str(part.get("text", "")) for part in item.content)
    if item.encrypted_content is None:
        return ""
    try:
        return unsealed(item.encrypted_content)
    except ValueError:
        at = f"{place}.encrypted_content"
        raise Refused(400, f"{at}: dsr did not write this", place=at) from None


def sealed(thought: str) -> str:
    """A thought as the text that clients send back without reading it. It is no secret: they get the thought, too."""
    return _SEAL + base64.b64encode(thought.encode()).decode("ascii")


def unsealed(text: str) -> str:
    """The thought that `sealed` wrote. Raises ValueError."""
    if not text.startswith(_SEAL):
        raise ValueError("no thought of dsr")
    return base64.b64decode(text.removeprefix(_SEAL), validate=True).decode()


def _joined(said: Iterable[Message]) -> Iterable[Message]:
    """A thought, an answer and its calls are items of their own; for a template they are one message."""
    held: Message | None = None
    for message in said:
        if held is not None and message.role == "assistant" and not (held.content and message.content):
            held = Message(
                "assistant",
                held.content or message.content,
                "\n".join(filter(None, (held.thinking, message.thinking))),
                calls=(*held.calls, *message.calls),
            )
            continue
        if held is not None:
            yield held
        held = message if message.role == "assistant" else None
        if held is None:
            yield message
    if held is not None:
        yield held
