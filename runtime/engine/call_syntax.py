"""How a model writes calls of tools in its answer: the marks around a call, its name and its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runtime.base.types import ToolCall
from runtime.engine.markers import TAG
from runtime.engine.other_arguments import gemma_text, python_text

# The name inside of a mark that repeats it.
NAME = "{name}"
KEY = "{key}"
CDATA, CDATA_END = "<![CDATA[", "]]>"
# A tag, or two with a word between them, such as `<|open|>tools<|sep|>`; no word of `call_derivation`.
UNIT = re.compile(rf"(?:{TAG.pattern})(?:(?!(?i:qz))[a-zA-Z]+(?:{TAG.pattern}))?")


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """A call is a JSON object, between `open` and `close`: `{"name": "f", "arguments": {...}}`.

    Without `name_key` the name is the key of the arguments: `{"f": {...}}`. `listed`: the calls of an answer are one
    array. `each`: every call has its own `open` and `close`; `separator` stands between two calls. `wrapped`: the
    object is the value of "function", as in OpenAI's API. `optional`: an answer may begin with a call without `open`.
    """

    open: str = ""
    close: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""
    listed: bool = False
    each: bool = True
    separator: str = "\n"
    wrapped: bool = False
    optional: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        return self.open, self.close

    @property
    def bare(self) -> bool:
        """Whether a call may come without marks."""
        return self.optional or not self.open.strip()

    def written(self, calls: Sequence[ToolCall]) -> str:
        """The calls as the model writes them."""
        values = [self._object(call) for call in calls]
        if self.listed:
            return f"{self.open}[{', '.join(values)}]{self.close}"
        if not self.each:
            return self.open + self.separator.join(values) + self.close
        return self.separator.join(self.open + value + self.close for value in values)

    def _object(self, call: ToolCall) -> str:
        arguments = call.arguments or "{}"
        if not self.name_key:
            return f"{{{quoted(call.name)}: {arguments}}}"
        known_id = f", {quoted(self.id_key)}: {quoted(call.id)}" if self.id_key else ""
        written = f'{{"{self.name_key}": {quoted(call.name)}, "{self.arguments_key}": {arguments}{known_id}}}'
        return f'{{"type": "function", "function": {written}}}' if self.wrapped else written


@dataclass(frozen=True, slots=True)
class TagArguments:
    """Each argument has its marks: `key_open` key `key_close` value `value_close`, `between` before each.

    Some formats say whether a value is a text: between `key_close` and `value_open` then stands `text_word` for texts,
    and another word for JSON. `other_word` is one of these. KEY in `value_close` stands for the key. `cdata`:
    texts may stand in `<![CDATA[...]]>`.
    """

    key_open: str
    key_close: str
    value_close: str
    between: str = ""
    text_word: str = ""
    other_word: str = ""
    value_open: str = ""
    cdata: bool = False

    def written(self, arguments: dict[str, Any]) -> str:
        return "".join(self.between + self._argument(key, value) for key, value in arguments.items())

    def _argument(self, key: str, value: Any) -> str:
        is_text = isinstance(value, str)
        word = self.text_word if is_text else self.other_word
        text = value if is_text else json.dumps(value, ensure_ascii=False)
        close = self.value_close.replace(KEY, key)
        return f"{self.key_open}{key}{self.key_close}{word}{self.value_open}{text}{close}"


@dataclass(frozen=True, slots=True)
class TaggedCalls:
    """A call has its name between marks: `call_open` name `name_close` arguments `call_close`.

    `open` and `close` enclose all calls of an answer, `between` stands between two. A call may have its id: before the
    name, then `id_close` follows it, or behind it, after `id_open`. `numbered`: the id is `functions.NAME:N`, and only
    N is written. NAME in `between` stands for the name. "python": the calls are a list of Python's calls. `header`: the
    name stands in the header of a message, with other words. A call of `text_name` is text for the user.
    """

    call_open: str
    name_close: str = ""
    call_close: str = ""
    arguments: TagArguments | Literal["json", "gemma", "python"] = "json"
    open: str = ""
    close: str = ""
    between: str = ""
    id_open: str = ""
    id_close: str = ""
    numbered: bool = False
    header: bool = False
    text_name: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        tags = self.arguments if isinstance(self.arguments, TagArguments) else None
        of_arguments = (tags.key_open, tags.key_close, tags.value_open, tags.value_close) if tags else ()
        marks = (self.open, self.call_open, self.name_close, self.call_close, self.between, self.close)
        quote = ('<|"|>',) if self.arguments == "gemma" else ()
        return (*marks, self.id_open, self.id_close, *of_arguments, *quote)

    def written(self, calls: Sequence[ToolCall]) -> str:
        """The calls as the model writes them."""
        if self.arguments == "python":
            written = (python_text(call.name, call.values) for call in calls)
            return f"{self.open}[{', '.join(written)}]{self.close}"
        bodies = [self._call(call, number) for number, call in enumerate(calls)]
        return self.open + self.between.join(bodies) + self.close

    def _call(self, call: ToolCall, number: int) -> str:
        name = call.id + self.id_close + call.name if self.id_close else call.name
        if self.id_open:
            name += self.id_open + (str(number) if self.numbered else call.id)
        if isinstance(self.arguments, TagArguments):
            body = self.arguments.written(call.values)
        elif self.arguments == "gemma":
            body = gemma_text(call.values)
        else:
            body = call.arguments or "{}"
        return self.call_open + name + self.name_close + body + self.call_close


CallSyntax = JsonCalls | TaggedCalls


def begins(syntax: CallSyntax) -> tuple[str, ...]:
    """The marks that begin calls in an answer; () if nothing marks them.

    Models leave out marks that say nothing new: that of the whole before that of a call, and `<tool_call>` before
    `<function=`.
    """
    if isinstance(syntax, JsonCalls):
        first = _first_mark(syntax.open, listed=syntax.listed)
        return (first,) if first else ()
    found = [_first_mark(syntax.open), _first_mark(syntax.call_open), last_word(syntax)]
    if found[0] and syntax.call_open.strip()[len(found[1]) :][:1].isalpha():
        found.pop(1)  # `<|open|>call`: the tag alone begins other things, too
    return tuple(dict.fromkeys(filter(None, found)))


def last_word(syntax: TaggedCalls) -> str:
    """The last mark before a name, if it is one of several that white space separates, and tells enough."""
    marks = syntax.call_open.split()
    if len(marks) < 2 or not UNIT.fullmatch(marks[0]):
        return ""
    return marks[-1] if marks[-1].startswith("<") and len(marks[-1]) > 4 else ""


def marks_of(syntax: CallSyntax) -> tuple[str, ...]:
    """The tags of the format, and its texts without white space around them: those that may be one token each."""
    bare = [text.strip() for text in syntax.texts]
    return tuple(dict.fromkeys(each for text in bare if text for each in (text, *TAG.findall(text)) if each))


def _first_mark(text: str, *, listed: bool = False) -> str:
    bare = text.strip()
    unit = UNIT.match(bare)
    if unit is not None:
        return unit[0]
    word = bare.split()[0] if bare else ""
    # A bare word needs what follows it to be a mark.
    return f"{word}[" if listed and word == bare and word.isalnum() else word


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
