from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.base.types import OneTool, Tool
from runtime.engine.tool_use import ToolUse

ADD, TIME = Tool("add"), Tool("time.now")


def test_a_tool_has_a_name_that_every_api_can_write() -> None:
    for name in ("add", "server/files.read", "a-b_c:d", "a" * 128):
        assert Tool(name).name == name
    for name in ("", "two words", "a" * 129, "ä", 'a"', "<x>"):
        with pytest.raises(UsageError, match="a tool's name has 1 to 128 letters"):
            Tool(name)


def test_the_arguments_of_a_tool_are_an_object() -> None:
    assert Tool("add", parameters={"properties": {}}).parameters == {"properties": {}}
    with pytest.raises(UsageError, match="the parameters of the tool add must be an object"):
        Tool("add", parameters={"type": "array"})


def test_the_prompt_lists_no_tool_that_may_not_be_called() -> None:
    assert ToolUse((ADD, TIME)).offered == (ADD, TIME)
    assert ToolUse((ADD, TIME), "none").offered == ()
    assert ToolUse((ADD, TIME), OneTool("add")).offered == (ADD, TIME)


def test_one_tool_alone_may_be_called_if_the_choice_names_it() -> None:
    assert ToolUse((ADD, TIME), OneTool("add")).callable.tools == (ADD,)
    assert ToolUse((ADD, TIME), "required").callable.tools == (ADD, TIME)


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ((ADD, ADD), "auto", "two tools have the name add"),
        ((ADD, TIME), OneTool("sub"), "the tool to call is sub, and the tools are add, time.now"),
        ((), OneTool("sub"), "the tool to call is sub, and the tools are none"),
        ((), "required", "a tool must be called, and none is given"),
        (tuple(Tool(f"t{n}") for n in range(257)), "auto", "at most 256 tools can be given, not 257"),
    ],
    ids=["twice", "unknown", "no tools", "none to require", "too many"],
)
def test_a_choice_without_its_tool_is_refused(tools: tuple[Tool, ...], choice: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ToolUse(tools, choice)  # type: ignore[arg-type]
