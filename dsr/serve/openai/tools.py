"""Tools, calls and their results in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsr.serve.http.errors import Refused
from runtime.base.types import OneTool, Tool, ToolCall, ToolChoice
from runtime.engine.tool_use import ToolUse


def tool_of(given: Any, place: str) -> Tool:
    """{"type": "function", "function": {name, description, parameters}}. Raises Refused, UsageError."""
    function = given.get("function", given) if isinstance(given, dict) else None
    if not isinstance(function, dict) or given.get("type", "function") != "function":
        raise Refused(400, f"{place}: a tool of the type function", place=place)
    name, description = function.get("name"), function.get("description") or ""
    parameters = function.get("parameters") or {}
    if not isinstance(name, str) or not isinstance(description, str) or not isinstance(parameters, dict):
        raise Refused(400, f"{place}: a function has a name, a description and parameters", place=place)
    return Tool(name, description, parameters)


def choice_of(given: Any) -> ToolChoice:
    """ "auto", "none", "required", or {"type": "function", "function": {"name": ...}}. Raises Refused."""
    if given is None:
        return "auto"
    if given in ("auto", "none", "required"):
        choice: ToolChoice = given
        return choice
    function = given.get("function", given) if isinstance(given, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return OneTool(function["name"])
    raise Refused(400, "tool_choice: auto, none, required, or a function by its name", place="tool_choice")


def tool_use(tools: Sequence[Any] | None, choice: Any, parallel: bool | None, place: str = "tools") -> ToolUse | None:
    """The tools of a request; None without any, unless one must be called. Raises Refused, UsageError."""
    wanted = choice_of(choice)
    if not tools and wanted in ("auto", "none"):
        return None
    found = tuple(tool_of(each, f"{place}.{number}") for number, each in enumerate(tools or ()))
    return ToolUse(found, wanted, parallel=parallel is not False)


def calls_of(given: Sequence[Any] | None, place: str) -> tuple[ToolCall, ...]:
    """The calls of an assistant's message. Raises Refused."""
    calls = []
    for number, each in enumerate(given or ()):
        function = each.get("function") if isinstance(each, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refused(400, f"{place}.{number}: a call has a function with a name", place=f"{place}.{number}")
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            raise Refused(400, f"{place}.{number}: the arguments are a JSON text", place=f"{place}.{number}")
        calls.append(ToolCall(str(each.get("id") or f"call_{number}"), function["name"], arguments))
    return tuple(calls)


def call_json(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
