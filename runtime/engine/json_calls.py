"""Reads calls that are JSON objects; see `JsonCalls`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from runtime.base.types import Tool
from runtime.engine.call_reader import CallReader
from runtime.engine.call_syntax import JsonCalls, begins
from runtime.engine.json_stream import JsonStream, object_within
from runtime.engine.markers import BARE, BARE_SO_FAR, FENCE
from runtime.engine.text_streams import first_of, tail_that_may_become

_KEY = re.compile(r'\s*"((?:[^"\\]|\\.){0,200})"\s*:\s*', re.DOTALL)
_KEY_SO_FAR = re.compile(r'\s*("((?:[^"\\]|\\.){0,200}\\?("\s*(:\s*)?)?)?)?', re.DOTALL)
_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters")
_IDS = ("id", "tool_call_id")


class JsonReader(CallReader):
    def __init__(
        self, syntax: JsonCalls, tools: Sequence[Tool], new_id: Callable[[int, str], str], *, bare: bool = False
    ) -> None:
        """`bare`: the text may begin with a call without marks, which must be one of a known tool."""
        super().__init__(begins(syntax), tools, new_id)
        self._syntax = syntax
        self._bare = bare
        self._fenced = False  # the text begins with a block of code, and the call stands in it
        self._stream = JsonStream()
        self._quoted = False
        self._name = self._known_id = ""
        self._started = False  # the present object has begun its call
        self._begun = 0  # where the arguments begin that came before the name
        self._early = ""  # arguments that came before the name
        self._inner = 0  # how many objects around the call are open
        self._named = (syntax.name_key, *_NAMES) if syntax.name_key else ()
        self._keyed = (syntax.arguments_key, *_ARGUMENTS) if syntax.name_key else ()
        if bare:
            self._step = self._at_the_start

    def _at_the_start(self) -> bool:
        """At the beginning of an answer, which may be a call without marks."""
        if not self._ended and BARE_SO_FAR.fullmatch(self._text):
            return False
        found = BARE.match(self._text)
        self._bare = found is not None
        if found is not None:
            self._fenced, self._at = FENCE in found[0], found.end() - 1
        self._step = self._in_object_begin if self._bare else self._in_text
        return True

    def _before_call(self) -> bool:
        """At the mark that begins calls."""
        self._bare = self._fenced = False
        end = self._meets(self._syntax.open)
        if end is None:
            return False
        if end < 0:
            return self._no_call()
        self._at, self._step = end, self._in_object_begin
        return True

    def _in_object_begin(self) -> bool:
        """Before an object: white space, the bracket of a list, what stands between two objects, or the end."""
        at = self._at
        while at < len(self._text) and (self._text[at].isspace() or self._text[at] in "[,;"):
            at += 1
        if at == len(self._text) and not self._ended:
            return False
        if self._text.startswith("{", at):
            self._at = at + 1
            self._name = self._known_id = self._early = ""
            self._started, self._inner = False, 0
            self._step = self._in_object
            return True
        return self._behind_calls(at)

    def _behind_calls(self, at: int) -> bool:
        if not self.calls:
            self._at = max(at, self._at)
            return self._no_call()
        if self._text.startswith("]", at):
            at += 1
        if self._fenced:
            end = self._meets(FENCE, at)
            if end is None:
                return False
            self._fenced, at = False, max(at, end)
        self._at = at
        if self._syntax.close.strip():
            end = self._meets(self._syntax.close)
            if end is None:
                return False
            self._at = len(self._text) if self._is_cut(self._syntax.close) else max(self._at, end)
        self._step, self._fresh, self._since = self._in_text, True, self._at
        return True

    def _in_object(self) -> bool:
        """Between two fields of an object."""
        at = self._behind_space(self._at)
        while self._text.startswith(",", at):
            at = self._behind_space(at + 1)
        if at == len(self._text):
            return False
        if self._text[at] == "}":
            self._at = at + 1
            if self._inner:
                self._inner -= 1
                return True
            return self._object_ended()
        found = _KEY.match(self._text, at)
        if found is None:
            return False if _KEY_SO_FAR.fullmatch(self._text, at) else self._mistake()
        if found.end() == len(self._text):
            return False
        return self._in_field(found[1], found.end())

    def _in_field(self, key: str, at: int) -> bool:
        first = self._text[at]
        if not self._inner and not self._syntax.name_key and not self._started:
            return self._named_by_key(key, at)
        if key in self._keyed and first in '{"':
            return self._arguments(at)
        if key == "function" and first == "{" and not self._started:
            self._at, self._inner = at + 1, self._inner + 1
            return True
        # Any other field: its value is read in one piece.
        stream = JsonStream()
        end = stream.feed(self._text, at)
        if end == len(self._text) and not stream.done and not stream.broken:
            return False
        if stream.broken:
            return self._mistake()
        value = json.loads(stream.text)
        if key in self._named and isinstance(value, str) and not self._name:
            self._name = value
            if not self._accepts():
                return self._no_call()
        elif key in (self._syntax.id_key, *_IDS) and isinstance(value, (str, int)):
            self._known_id = str(value)
        self._at = end
        if self._name and not self._started and key in self._named:
            self._begin_call()
        return True

    def _accepts(self) -> bool:
        """Whether a name can be one: of a tool, where no mark says that this is a call."""
        return self._name in self._tools if self._bare else bool(self._name)

    def _named_by_key(self, key: str, at: int) -> bool:
        self._name = json.loads(f'"{key}"', strict=False)
        if not self._accepts() or self._text[at] not in '{"':
            return self._no_call()
        self._begin_call()
        return self._arguments(at)

    def _begin_call(self) -> None:
        self._started = True
        self._start(self._name, self._known_id)
        if self._early:
            self.calls[-1].begins = self._begun
            self._grow(self._early)

    def _arguments(self, at: int) -> bool:
        self._at = at
        self._begun = self.place
        if self._started:
            self.calls[-1].begins = self._begun
        self._stream, self._quoted = JsonStream(), self._text[at] == '"'
        self._step = self._in_arguments
        return True

    def _in_arguments(self) -> bool:
        self._at = self._stream.feed(self._text, self._at)
        if self._started and not self._quoted:
            self._grow(self._stream.take())
        if self._stream.broken:
            return self._mistake()
        if not self._stream.done:
            return False
        if self._quoted:
            inner = json.loads(self._stream.text)
            arguments, whole = object_within(inner)
            if inner.strip() and not whole:
                return self._mistake()
            self._early = arguments
            if self._started:
                self._grow(arguments)
        elif not self._started:
            self._early = self._stream.text
        self._step = self._in_object
        return True

    def _object_ended(self) -> bool:
        if not self._started:
            return self._no_call()
        self._end()
        self._since, self._bare = self._at, False
        self._step = self._in_object_begin
        return True

    def _mistake(self) -> bool:
        if not self._started:
            return self._no_call()
        self._break()
        self._step = self._skipping
        return True

    def _skipping(self) -> bool:
        """Behind a mistake, up to a mark that ends the calls or begins others."""
        close = self._syntax.close.strip()
        ends = tuple(filter(None, (close, *self._begins)))
        found = first_of(ends, self._text[self._at :]) if ends else None
        if found is None:
            kept = 0 if self._ended else tail_that_may_become(ends, self._text[self._at :])
            self._at = self._since = len(self._text) - kept
            return False
        self._at += found[0] + (len(close) if found[1] == close else 0)
        self._since, self._step, self._fresh = self._at, self._in_text, True
        return True
