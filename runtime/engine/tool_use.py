"""Which tools an answer may call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from runtime.base.errors import UsageError
from runtime.base.types import OneTool, Tool, ToolChoice, listed

_MOST_TOOLS = 256  # each is a part of the prompt, and a branch of the grammar


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The `tools` of a request. `choice`: the answer may call them ("auto"), never does ("none"), calls at least one
    ("required"), or calls `OneTool`. `parallel`: one answer may have several calls.

    Raises UsageError for two tools with one name, and for a choice without its tool.
    """

    tools: tuple[Tool, ...]
    choice: ToolChoice = "auto"
    parallel: bool = True

    def __post_init__(self) -> None:
        names = Counter(each.name for each in self.tools)
        if len(self.tools) > _MOST_TOOLS:
            raise UsageError(f"at most {_MOST_TOOLS} tools can be given, not {len(self.tools)}")
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise UsageError(f"two tools have the name {twice[0]}")
        if isinstance(self.choice, OneTool) and self.choice.name not in names:
            raise UsageError(
                f"the tool to call is {self.choice.name}, and the tools are {listed(list(names)) or 'none'}"
            )
        if self.choice == "required" and not names:
            raise UsageError("a tool must be called, and none is given")

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that the prompt lists: none if none may be called."""
        return () if self.choice == "none" else self.tools

    @property
    def callable(self) -> ToolUse:
        """The use with the tools that the answer may call, which are fewer than the prompt lists for `OneTool`."""
        if not isinstance(self.choice, OneTool):
            return self
        name = self.choice.name
        return replace(self, tools=tuple(each for each in self.tools if each.name == name))
