"""Reads calls that are written as a list of Python's calls; see `TaggedCalls`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime.base.types import Tool
from runtime.engine.call_reader import MOST_NAME, CallReader
from runtime.engine.call_syntax import TaggedCalls, begins
from runtime.engine.other_arguments import PythonCallEnd, read_python_call


class PythonReader(CallReader):
    def __init__(self, syntax: TaggedCalls, tools: Sequence[Tool], new_id: Callable[[int, str], str]) -> None:
        super().__init__(begins(syntax), tools, new_id)
        self._syntax = syntax
        self._end_of_call = PythonCallEnd()

    def _before_call(self) -> bool:
        end = self._meets(self._syntax.open)
        if end is None:
            return False
        if end < 0:
            return self._no_call()
        self._at, self._step = end, self._in_list
        return True

    def _in_list(self) -> bool:
        """Between two calls."""
        at = self._behind_space(self._at)
        while at < len(self._text) and (self._text[at] in "[,;" or self._text[at].isspace()):
            at += 1
        if at == len(self._text):
            return False
        if self._text[at] == "]" or self._text.startswith(self._syntax.close, at):
            self._at = at + (self._text[at] == "]")
            end = self._meets(self._syntax.close)
            if end is None:
                return False
            self._at = max(end, self._at)
            self._step, self._fresh = self._in_text, bool(self.calls)
            return True
        self._at = at
        length = self._end_of_call.find(self._text[at:])
        if length < 0:
            return False
        self._end_of_call, end = PythonCallEnd(), at + length
        called = read_python_call(self._text[at:end])
        if called is None and not self.calls:
            self._at = end
            return self._no_call()
        self._at = at
        self._start(called[0] if called else self._text[at:end].partition("(")[0].strip()[:MOST_NAME], "")
        self._at = self._since = end
        if called is None:
            self._break()
        else:
            self._grow(called[1])
            self._end()
        return True
