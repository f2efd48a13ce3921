"""From the tools that servers list to the tools that a model is offered: unique names, bounded sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsr.chat.tools.config import ServerConfig
from dsr.ui.console import one_line, printable
from dsr.ui.text import truncate
from runtime.base.errors import UsageError
from runtime.base.types import Tool, counted

# The names that OpenAI's API allows, which is what models were trained with. Dots are not among them.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64
# Each tool is a part of every prompt: 128 of the usual size take about 20,000 tokens.
MOST_TOOLS = 128
# The longest schemas of well-known servers have some 10 KiB.
_MOST_SCHEMA_BYTES = 32 << 10
_DEEPEST_SCHEMA = 32
_LONGEST_DESCRIPTION = 4096


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as a server lists it; `schema` is that of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that the model may call as `tool.name`; its `server` knows it as `name`."""

    tool: Tool
    server: ServerConfig
    name: str

    def __str__(self) -> str:
        """'get_current_time of the server time'."""
        return f"{truncate(one_line(self.name), 64)} of the server {one_line(self.server.name)}"


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools in the order of their servers, and lines for a person about the tools left out."""

    tools: tuple[OfferedTool, ...]
    notes: tuple[str, ...] = ()


def offer(listed: Sequence[tuple[ServerConfig, Sequence[ListedTool]]]) -> Offer:
    """The tools that a model is offered. A tool that no prompt can hold is left out, which a note says."""
    tools: list[OfferedTool] = []
    notes: list[str] = []
    taken: set[str] = set()
    beyond = 0
    for server, its in listed:
        for each in its:
            if problem := _problem(each.schema):
                notes.append(f"server {server.name}: the tool {truncate(one_line(each.name), 64)} {problem}")
            elif len(tools) == MOST_TOOLS:
                beyond += 1
            else:
                name = _unique(f"{server.name}_{each.name}", taken)
                taken.add(name)
                try:
                    tool = Tool(name, _described(each.description), each.schema)
                except UsageError as error:
                    notes.append(f"server {server.name}: {error.message}")
                    continue
                tools.append(OfferedTool(tool, server, each.name))
    if beyond:
        notes.append(f"the model is offered the first {MOST_TOOLS} tools; {counted(beyond, 'more tool')} left out")
    return Offer(tuple(tools), tuple(notes))


def _unique(wanted: str, taken: set[str]) -> str:
    """`wanted` in allowed characters, short enough, and unlike the names in `taken`."""
    name = _NOT_IN_NAMES.sub("_", wanted).strip("_") or "tool"
    short, number = name[:_LONGEST_NAME], 2
    while short in taken:
        ending = f"_{number}"
        short, number = name[: _LONGEST_NAME - len(ending)] + ending, number + 1
    return short


def _described(text: str) -> str:
    said = printable(text).strip()
    return said if len(said) <= _LONGEST_DESCRIPTION else said[:_LONGEST_DESCRIPTION].rstrip() + " ..."


def _problem(schema: Mapping[str, Any]) -> str | None:
    """Why a schema is not offered, in words that follow the name of its tool."""
    if json_depth(schema, _DEEPEST_SCHEMA + 1) > _DEEPEST_SCHEMA:
        return f"is left out: its schema has more than {_DEEPEST_SCHEMA} levels"
    size = len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "replace"))
    if size > _MOST_SCHEMA_BYTES:
        return f"is left out: its schema has {size:,} bytes, more than {_MOST_SCHEMA_BYTES:,}"
    return None


def json_depth(value: object, most: int) -> int:
    """Levels of a JSON value, at most `most`."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    if inner is None or most == 0:
        return 0
    return 1 + max((json_depth(each, most - 1) for each in inner), default=0)
