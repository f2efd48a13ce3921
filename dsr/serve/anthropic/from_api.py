"""Bodies of Anthropic's API become asks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from dsr.models.sampling import SamplingRequest
from dsr.serve.anthropic.schema import Block, CountBody, MessagesBody, ToolChoiceBody, TurnBody
from dsr.serve.ask import Ask
from dsr.serve.formats import grammar_of
from dsr.serve.http.errors import Refused
from dsr.serve.http.refusals import refuse
from dsr.serve.names import Named
from dsr.serve.own_field import DsrOptions, strategy_of
from runtime.base.types import Message, OneTool, Tool, ToolCall, ToolChoice
from runtime.engine.grammar import Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.tool_use import ToolUse

_CHOICES: dict[str, ToolChoice] = {"auto": "auto", "any": "required", "none": "none"}


def messages_ask(body: MessagesBody, named: Named, client: str) -> Ask:
    """Raises Refused, UsageError."""
    _refuse(body)
    refuse(
        ("container", body.container is not None, "dsr runs no code"),
        ("speed", body.speed not in (None, "standard"), "dsr has one speed"),
        ("inference_geo", body.inference_geo is not None, "dsr runs where it runs"),
        ("diagnostics", body.diagnostics is not None, "dsr tells none"),
        ("service_tier", body.service_tier not in (None, "auto", "standard_only"), "dsr has one tier; send auto"),
    )
    own = body.dsr or DsrOptions()
    strategy, settings = strategy_of(own, named)
    thinking = body.thinking
    budget = thinking.budget_tokens if thinking is not None and thinking.type == "enabled" else own.think_budget
    sampling = SamplingRequest(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_tokens=body.max_tokens,
        think_budget=budget,
        stop=tuple(body.stop_sequences),
    )
    return Ask(
        messages=messages_of(body),
        sampling=sampling,
        options=_options(body, own),
        strategy=strategy,
        settings=settings,
        tools=_tools(body),
        grammar=_grammar(body),
        client=client,
        seconds=own.timeout,
    )


def count_ask(body: CountBody) -> Ask:
    """The ask whose prompt is counted. Raises Refused, UsageError."""
    _refuse(body)
    return Ask(messages=messages_of(body), options=_options(body, DsrOptions()), tools=_tools(body))


def _refuse(body: CountBody) -> None:
    """Raises Refused for what dsr does not do."""
    edits = (body.context_management or {}).get("edits") or ()
    # Earlier thoughts are cleared anyway, as the chat template has it.
    others = [each for each in edits if not str(each.get("type", "")).startswith("clear_thinking")]
    thinking = body.thinking
    refuse(
        ("mcp_servers", body.mcp_servers, "dsr calls no servers"),
        ("context_management.edits", others, "dsr clears nothing but earlier thoughts"),
        ("thinking.display", thinking and thinking.display not in (None, "summarized"), "dsr sends the thought itself"),
    )


def _options(body: CountBody, own: DsrOptions) -> PromptOptions:
    """A last message of the assistant is the beginning of the answer, which goes on."""
    wish = {"enabled": True, "disabled": False}.get(body.thinking.type) if body.thinking is not None else own.think
    effort = body.output_config.effort if body.output_config is not None and wish is not False else None
    return PromptOptions(
        thinking=wish,
        effort="max" if effort == "xhigh" else effort,
        keep_thoughts=own.keep_thoughts,
        continues=own.continues or body.messages[-1].role == "assistant",
    )


def _grammar(body: MessagesBody) -> Grammar | None:
    """Of `output_config.format`, or of the older field `output_format`. Raises Refused."""
    config = body.output_config
    if config is not None and config.format is not None:
        return grammar_of(config.format, place="output_config.format")
    return grammar_of(body.output_format, place="output_format")


def messages_of(body: CountBody) -> tuple[Message, ...]:
    """Raises Refused for a block that is no text, thought, call or result."""
    system = _text(body.system, "system") if body.system is not None else ""
    said = [Message("system", system)] if system else []
    for number, turn in enumerate(body.messages):
        said += _turn(turn, f"messages.{number}.content")
    return tuple(said)


def _turn(turn: TurnBody, place: str) -> Iterator[Message]:
    if isinstance(turn.content, str):
        yield Message(turn.role, turn.content)
        return
    texts, thoughts, calls = [], [], []
    for number, block in enumerate(turn.content):
        at = f"{place}.{number}"
        if block.type == "text":
            texts.append(block.text or "")
        elif block.type == "thinking":
            thoughts.append(block.thinking or "")
        elif block.type == "tool_use" and turn.role == "assistant":
            calls.append(ToolCall(block.id or "", block.name or "", json.dumps(block.input or {}, ensure_ascii=False)))
        elif block.type == "tool_result" and turn.role == "user":
            yield Message("tool", _result(block, at), call_id=block.tool_use_id or "")
        elif block.type != "redacted_thinking":
            what = f"dsr reads text, thoughts, calls and results, and no {block.type} of the {turn.role}"
            raise Refused(400, f"{at}: {what}", place=at)
    if texts or thoughts or calls:
        yield Message(turn.role, "\n".join(texts), "\n".join(thoughts), calls=tuple(calls))


def _result(block: Block, place: str) -> str:
    text = _text(block.content, f"{place}.content")
    return f"Error: {text}" if block.is_error else text


def _text(content: str | Sequence[Block] | None, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for number, block in enumerate(content):
        if block.type != "text":
            at = f"{place}.{number}"
            raise Refused(400, f"{at}: dsr reads text, not {block.type}", place=at)
    return "\n".join(block.text or "" for block in content)


def _tools(body: CountBody) -> ToolUse | None:
    choice = body.tool_choice or ToolChoiceBody(type="auto")
    if not body.tools and choice.type in ("auto", "none"):
        return None
    tools = []
    for number, given in enumerate(body.tools or ()):
        if given.type not in (None, "custom"):
            place = f"tools.{number}.type"
            raise Refused(400, f"{place}: {given.type} is a tool of Anthropic's servers", place=place)
        tools.append(Tool(given.name, given.description, given.input_schema))
    wanted = OneTool(choice.name or "") if choice.type == "tool" else _CHOICES[choice.type]
    return ToolUse(tuple(tools), wanted, parallel=not choice.disable_parallel_tool_use)
