"""Tools, earlier calls and their results in the form that a chat template takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import prompts
from runtime.base.types import Message, Tool, ToolCall
from runtime.engine.tool_form import Ids, ToolForm, as_openai, tool_variables

_NINE = re.compile(r"[A-Za-z0-9]{9}")
_NUMBERED = re.compile(r"functions\..+:\d+")


def with_tools(
    messages: Sequence[Message], tools: Sequence[Tool], form: ToolForm
) -> tuple[tuple[Message, ...], dict[str, object]]:
    """The messages as the template takes them, and the variables with the tools.

    What the template does not write itself is written into the contents: the list of the tools into the system prompt,
    calls into answers, results into questions.
    """
    said = _with_names(_with_ids(messages, form.ids))
    if not form.parallel:
        said = _one_by_one(said)
    if form.writes is None:
        said = [replace(each, content=_with_calls(each, form), calls=()) if each.calls else each for each in said]
    if not form.returns:
        said = _as_questions(said)
    if tools and not form.lists:
        said = _listed(said, tools, form)
    return tuple(said), tool_variables(form.lists, tools)


def _with_calls(message: Message, form: ToolForm) -> str:
    written = form.syntax.written(message.calls)
    return f"{message.content.rstrip()}\n{written}" if message.content.strip() else written


def _as_questions(messages: Sequence[Message]) -> list[Message]:
    """Results of tools as questions, those that follow each other in one; in the tags of Hermes and Qwen."""
    said: list[Message] = []
    behind = False  # a result
    for each in messages:
        if each.role != "tool":
            said.append(each)
        else:
            text = f"<tool_response>\n{each.content}\n</tool_response>"
            if behind:
                said[-1] = replace(said[-1], content=f"{said[-1].content}\n{text}")
            else:
                said.append(Message("user", text))
        behind = each.role == "tool"
    return said


def _listed(messages: Sequence[Message], tools: Sequence[Tool], form: ToolForm) -> list[Message]:
    """With the list of the tools at the end of the system prompt."""
    lines = "\n".join(json.dumps(as_openai(tool), ensure_ascii=False) for tool in tools)
    example = form.syntax.written((ToolCall("", "FUNCTION_NAME", '{"PARAMETER": "VALUE"}'),))
    text = prompts.read("tools").replace("{example}", example).replace("{tools}", lines)
    system = next((at for at, each in enumerate(messages) if each.role == "system"), None)
    if system is None:
        return [Message("system", text), *messages]
    said = [*messages]
    said[system] = replace(said[system], content=f"{said[system].content}\n\n{text}")
    return said


def _one_by_one(messages: Sequence[Message]) -> list[Message]:
    """Several calls of one answer as several answers, each before its result."""
    said: list[Message] = []
    for at, each in enumerate(messages):
        if each.role == "tool":
            continue
        results = list(_results_behind(messages, at))
        if len(each.calls) < 2:
            said += [each, *results]
            continue
        for number, call in enumerate(each.calls):
            said.append(replace(each, calls=(call,)) if number == 0 else Message("assistant", "", calls=(call,)))
            said += [result for result in results if result.call_id == call.id]
        known = {call.id for call in each.calls}
        said += [result for result in results if result.call_id not in known]
    return said


def _results_behind(messages: Sequence[Message], at: int) -> Iterator[Message]:
    for each in messages[at + 1 :]:
        if each.role != "tool":
            return
        yield each


def _with_names(messages: Sequence[Message]) -> list[Message]:
    """Results with the names of their tools, which templates ask for and APIs leave out."""
    names: dict[str, str] = {}
    said = []
    for each in messages:
        names.update((call.id, call.name) for call in each.calls)
        if each.role == "tool" and not each.name:
            each = replace(each, name=names.get(each.call_id, ""))
        said.append(each)
    return said


def _with_ids(messages: Sequence[Message], style: Ids) -> list[Message]:
    """With the ids that the template takes, in place of others."""
    if style == "any":
        return [*messages]
    known: dict[str, str] = {}
    count = 0
    said = []
    for each in messages:
        for call in each.calls:
            known[call.id] = _id(call, style, count)
            count += 1
        calls = tuple(replace(call, id=known[call.id]) for call in each.calls)
        call_id = known.get(each.call_id) or (_nine(each.call_id) if style == "nine" and each.call_id else each.call_id)
        said.append(replace(each, calls=calls, call_id=call_id))
    return said


def _id(call: ToolCall, style: Ids, number: int) -> str:
    if style == "nine":
        return _nine(call.id)
    return call.id if _NUMBERED.fullmatch(call.id) else f"functions.{call.name}:{number}"


def _nine(known_id: str) -> str:
    """An id of nine letters and digits, always the same for one id."""
    return known_id if _NINE.fullmatch(known_id) else hashlib.blake2b(known_id.encode(), digest_size=9).hexdigest()[:9]
