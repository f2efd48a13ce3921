"""What reading calls of tools in a stream of text has in common for all syntaxes: the text, the calls, the marks.

How a stream is cut into pieces never changes the result: every decision waits for the text that it needs.
"""

from __future__ import annotations

import ast
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from runtime.base.types import Tool, ToolCall
from runtime.engine.text_streams import first_of, tail_that_may_become

WORD = re.compile(r"[\w.:/-]+", re.ASCII)  # a name, or an id
MOST_NAME = 200  # characters of a name or an id, with what a header has around it


@dataclass(frozen=True, slots=True)
class Grown:
    """A call grew by some text of its arguments."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Call:
    """A call while it is read. `begins`: where its arguments begin in the text that was read."""

    id: str
    name: str
    begins: int
    arguments: str = ""
    state: Literal["open", "complete", "broken"] = "open"

    def done(self) -> ToolCall:
        return ToolCall(self.id, self.name, self.arguments)


class CallReader(ABC):
    """Reads calls and the text around them. `tools` are known; `new_id` makes the id of a call that has none.

    `_step` is the state: a method that reads on, and says whether it could.
    """

    def __init__(self, begins: Sequence[str], tools: Sequence[Tool], new_id: Callable[[int, str], str]) -> None:
        self.calls: list[Call] = []
        self._begins = tuple(begins)
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self._new_id = new_id
        self._text = ""
        self._at = 0  # how much of `_text` is read
        self._before = 0  # how much text was read and dropped
        self._ended = False
        self._out: list[str | Grown] = []
        self._since = 0  # where in `_text` the present call, or what may be one, begins
        self._step: Callable[[], bool] = self._in_text
        self._fresh = False  # a call ended just now: white space is dropped

    @property
    def place(self) -> int:
        """How many characters were read."""
        return self._before + self._at

    def feed(self, text: str) -> list[str | Grown]:
        """Take more text; give out what is certain by now: text for the user, and calls that grew."""
        growing = bool(self.calls) and self.calls[-1].state == "open"
        if growing or self._step == self._in_text:
            self._since = self._at  # nothing before this can become text again
        kept = min(self._at, self._since)
        self._before += kept
        self._text = self._text[kept:] + text
        self._at -= kept
        self._since -= kept
        while self._step():
            pass
        out, self._out = self._out, []
        return out

    def finish(self) -> list[str | Grown]:
        """No more text comes."""
        self._ended = True
        out = self.feed("")
        if not self.calls or self.calls[-1].state != "open":
            # What began like a call, and did not become one, is text.
            self._say(self._text[self._at if self._step == self._in_text else self._since :])
        self._at = self._since = len(self._text)
        return out + self._out

    def _meets(self, mark: str, at: int | None = None) -> int | None:
        """Where `mark` ends if the text goes on with it, -1 if it does not; None while that is open.

        White space in and before the mark may be any, or none.
        """
        at = self._at if at is None else at
        for part in mark.split():
            at = self._behind_space(at)
            if self._text.startswith(part, at):
                at += len(part)
            elif not self._ended and part.startswith(self._text[at:]):
                return None
            else:
                return -1
        return at

    def _is_cut(self, mark: str) -> bool:
        """Whether the text ends within `mark`."""
        rest = self._text[self._behind_space(self._at) :]
        return self._ended and bool(rest) and mark.strip().startswith(rest)

    def _behind_space(self, at: int) -> int:
        while at < len(self._text) and self._text[at].isspace():
            at += 1
        return at

    # Text for the user.

    def _in_text(self) -> bool:
        text, at = self._text, self._at
        if self._fresh:
            at = self._at = self._behind_space(at)
            self._fresh = at == len(text)
        found = first_of(self._begins, text[at:])
        if found is not None:
            self._say(text[at : at + found[0]])
            self._at = self._since = at + found[0]
            self._step = self._before_call
            return True
        kept = 0 if self._ended else tail_that_may_become(self._begins, text[at:])
        self._say(text[at : len(text) - kept])
        self._at = len(text) - kept
        return False

    @abstractmethod
    def _before_call(self) -> bool:
        """Read the mark at which a call may begin."""

    def _say(self, text: str) -> None:
        if text and self._out and isinstance(self._out[-1], str):
            self._out[-1] += text
        elif text:
            self._out.append(text)

    def _no_call(self) -> bool:
        """What looked like a call is text."""
        self._say(self._text[self._since : self._at])
        if self._at == self._since and self._at < len(self._text):
            self._say(self._text[self._at])
            self._at += 1
        self._step = self._in_text
        return True

    # Calls.

    def _start(self, name: str, known_id: str) -> None:
        index = len(self.calls)
        # A short id, such as "0", would come again in the next turn.
        call = Call(known_id if len(known_id) > 3 else self._new_id(index, name), name, self.place)
        self.calls.append(call)
        self._out.append(Grown(index, call.id, name, ""))

    def _grow(self, text: str) -> None:
        call, index = self.calls[-1], len(self.calls) - 1
        if not text:
            return
        call.arguments += text
        last = self._out[-1] if self._out else None
        if isinstance(last, Grown) and last.index == index:
            self._out[-1] = replace(last, arguments=last.arguments + text)
        else:
            self._out.append(Grown(index, call.id, call.name, text))

    def _end(self) -> None:
        if not self.calls[-1].arguments.strip():
            self._grow("{}")
        self.calls[-1].state = "complete"
        self._fresh = True

    def _break(self) -> None:
        self.calls[-1].state = "broken"
        self._fresh = True


def escaped(text: str) -> str:
    """The text as the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def types_of(tool: Tool | None, key: str) -> frozenset[str]:
    """The types that the schema of a tool allows for an argument; none if it does not say."""
    if tool is None:
        return frozenset()
    properties = tool.parameters.get("properties")
    schema = properties.get(key) if isinstance(properties, Mapping) else None
    return frozenset(_types(schema, tool.parameters, 8))


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> Iterator[str]:
    if not isinstance(schema, Mapping) or depth == 0:
        return
    named = schema.get("type")
    yield from [named] if isinstance(named, str) else [each for each in named or () if isinstance(each, str)]
    values = [*(schema.get("enum") or ()), *([schema["const"]] if "const" in schema else [])]
    yield from (_JSON_TYPES.get(type(value), "string") for value in values) if named is None else ()
    for word in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(word) or ():
            yield from _types(each, root, depth - 1)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        found: Any = root
        for part in reference[2:].split("/"):
            found = found.get(part) if isinstance(found, Mapping) else None
        yield from _types(found, root, depth - 1)


_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}
_MOST_PYTHON = 100_000  # characters of a value; Python's parser takes memory for each


def json_of(raw: str, types: frozenset[str]) -> str:
    """An argument without quotation marks as JSON: the value that it spells, if a value of its type may do that."""
    value = _value_of(raw.strip())
    kind = _JSON_TYPES.get(type(value), "string")
    if kind == "string":
        # A text in quotation marks where no text belongs lost its marks by being read.
        return json.dumps(value if types and "string" not in types else raw, ensure_ascii=False)
    allowed = not types or kind in types or (kind == "integer" and "number" in types)
    return json.dumps(value if allowed else raw, ensure_ascii=False)


def _value_of(text: str) -> Any:
    """The value that a text spells, in JSON or in Python as some templates write it; else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if text[:1] not in ("[", "{") and text not in ("True", "False", "None"):
        return text
    try:
        value = ast.literal_eval(text) if len(text) <= _MOST_PYTHON else text
        json.dumps(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text
    return value
