"""The body of POST /v1/responses becomes an ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dsr.models.sampling import SamplingRequest
from dsr.serve.ask import Ask
from dsr.serve.http.errors import Refused
from dsr.serve.names import Named
from dsr.serve.openai.formats import grammar_of
from dsr.serve.openai.from_api import options_of, strategy_of, text_of
from dsr.serve.openai.responses_schema import Item, ResponsesBody
from dsr.serve.openai.schema import DsrOptions
from dsr.serve.openai.tools import choice_of, tool_of
from runtime.base.types import Message, ToolCall
from runtime.engine.tool_use import ToolUse


def responses_ask(body: ResponsesBody, named: Named, before: Sequence[Message], client: str) -> Ask:
    """`before` is the conversation of the previous response. Raises Refused, UsageError."""
    if body.background:
        raise Refused(400, "background: dsr answers at once", place="background")
    own = body.dsr or DsrOptions()
    strategy, settings = strategy_of(own, named)
    return Ask(
        messages=messages_of(body, before),
        sampling=SamplingRequest(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_output_tokens,
            think_budget=own.think_budget,
        ),
        options=options_of(body.reasoning.effort if body.reasoning is not None else None, own),
        strategy=strategy,
        settings=settings,
        tools=_tools(body),
        grammar=grammar_of(body.text.format if body.text is not None else None, place="text.format"),
        client=client,
        seconds=own.timeout,
    )


def messages_of(body: ResponsesBody, before: Sequence[Message]) -> tuple[Message, ...]:
    """Instructions hold for this response alone; the conversation before and the new items follow. Raises Refused."""
    new = [Item(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    said = [*before, *_each(new)]
    if body.instructions:
        said = [Message("system", body.instructions), *(each for each in said if each.role != "system")]
    return tuple(_joined(said))


def _each(items: Sequence[Item]) -> Iterable[Message]:
    for number, item in enumerate(items):
        place = f"input.{number}"
        if item.type in (None, "message") and item.role is not None:
            role = "system" if item.role == "developer" else item.role
            yield Message(role, text_of(item.content, f"{place}.content"))
        elif item.type == "reasoning":
            parts = item.content if isinstance(item.content, list) else []
            yield Message("assistant", "", "\n".join(str(part.get("text", "")) for part in parts))
        elif item.type == "function_call":
            call = ToolCall(item.call_id or f"call_{number}", item.name or "", item.arguments or "{}")
            yield Message("assistant", "", calls=(call,))
        elif item.type == "function_call_output":
            yield Message("tool", text_of(item.output, f"{place}.output"), call_id=item.call_id or "")
        else:
            raise Refused(400, f"{place}.type: dsr does not read {item.type}", place=f"{place}.type")


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


def _tools(body: ResponsesBody) -> ToolUse | None:
    if not body.tools:
        return None
    tools = tuple(tool_of(each, f"tools.{number}") for number, each in enumerate(body.tools))
    return ToolUse(tools, choice_of(body.tool_choice), parallel=body.parallel_tool_calls is not False)
