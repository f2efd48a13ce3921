"""Reads calls whose name stands between marks; see `TaggedCalls`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from runtime.base.types import Tool
from runtime.engine.call_reader import MOST_NAME, WORD, CallReader, escaped, json_of, types_of
from runtime.engine.call_syntax import CDATA, CDATA_END, KEY, NAME, TagArguments, TaggedCalls, begins, last_word
from runtime.engine.json_stream import JsonStream, object_within
from runtime.engine.other_arguments import GemmaStream
from runtime.engine.text_streams import first_of, tail_that_may_become


class TaggedReader(CallReader):
    def __init__(
        self, syntax: TaggedCalls, tools: Sequence[Tool], new_id: Callable[[int, str], str], *, begun: bool = False
    ) -> None:
        """`begun`: the prompt ends in the mark before the first name."""
        super().__init__(begins(syntax), tools, new_id)
        self._syntax = syntax
        self._tags = syntax.arguments if isinstance(syntax.arguments, TagArguments) else None
        self._stream = JsonStream()
        self._quoted = False  # the arguments are a JSON text in quotation marks
        self._known_id = ""
        self._key = ""
        self._ends = ""  # the mark behind the value
        self._looked = 0  # how much of the value has no end
        self._is_text = False
        self._arguments = 0
        self._closed = 0  # how many of the marks behind the arguments were looked for
        self._opens = [mark for mark in (syntax.call_open, last_word(syntax)) if mark]
        self._closes = syntax.call_close.split()
        gap = re.escape(syntax.between.strip()).replace(re.escape(NAME), WORD.pattern)
        self._between = re.compile(gap) if NAME in syntax.between else None
        if begun:
            self._step = self._in_name

    def _before_call(self) -> bool:
        """At a mark that begins calls, or between two of them."""
        if self._between is not None and self.calls:
            found = self._between.match(self._text, self._behind_space(self._at))
            if found is not None:
                self._at = found.end()
            elif not self._ended and len(self._text) - self._at < MOST_NAME:
                return False
        for mark in self._opens:
            met = self._meet(mark, self._in_name)
            if met is not None:
                return met
        for mark in filter(None, (self._syntax.open, self._syntax.close)):
            step = self._before_call if mark == self._syntax.open else self._in_text
            met = self._meet(mark, step)
            if met is not None:
                self._fresh = mark == self._syntax.close
                return met
        if self.calls and self._since == self._at:
            self._at = self._since = self._behind_space(self._at)
        return self._no_call()

    def _meet(self, mark: str, step: Callable[[], bool]) -> bool | None:
        """Go on behind the mark: True; False while it is open whether it comes; None if it does not."""
        end = self._meets(mark)
        if end is None:
            return False
        if end < 0:
            return None
        self._at, self._step = end, step
        return True

    def _in_name(self) -> bool:
        syntax, self._known_id, at = self._syntax, "", self._behind_space(self._at)
        if syntax.id_close:
            end = self._text.find(syntax.id_close, at)
            if end < 0:
                return self._wait(at)
            self._known_id, at = self._text[at:end].strip(), end + len(syntax.id_close)
        found = WORD.match(self._text, at)
        end = found.end() if found else at
        if end == len(self._text) and not self._ended:
            return self._wait(at)
        if found is None:
            return self._no_call()
        name = found[0]
        if syntax.numbered:
            name, colon, number = name.rpartition(":")
            name, self._known_id = (name, f"functions.{name}:{number}") if colon else (number, "")
        elif syntax.id_open:
            behind_id = self._behind_id(end)
            if behind_id is None:
                return self._wait(at)
            end = behind_id
        behind = self._behind_name(end)
        if behind is None:
            return self._wait(at)
        if behind < 0:
            return self._no_call()
        self._at = behind
        return self._begin(name)

    def _behind_id(self, at: int) -> int | None:
        """Where the id behind a name ends; None if more must come."""
        opened = self._meets(self._syntax.id_open, at)
        if opened is None or opened < 0:
            return None if opened is None else at
        found = WORD.match(self._text, opened)
        end = found.end() if found else opened
        if end == len(self._text) and not self._ended:
            return None
        self._known_id = found[0] if found else ""
        return end

    def _behind_name(self, at: int) -> int | None:
        """Where the arguments begin; -1 if this is no call, None if more must come."""
        close = self._syntax.name_close
        if self._syntax.header:
            found = self._text.find(close, at)
            if found >= 0:
                return found + len(close)
            return -1 if self._ended or len(self._text) - at > MOST_NAME else None
        end = self._meets(close, at)
        if end != -1:
            return end
        # The mark is missing: it is a call all the same if arguments or its end follow.
        begin = "{" if self._tags is None else self._tags.key_open
        for mark in (begin, *self._closes[:1]):
            end = self._meets(mark, at)
            if end != -1:
                return None if end is None else at
        return -1

    def _wait(self, at: int) -> bool:
        if self._ended or len(self._text) - at > MOST_NAME:
            self._at = at
            return self._no_call()
        return False

    def _begin(self, name: str) -> bool:
        if name == self._syntax.text_name:
            self._step, self._fresh = self._in_text, False
            return True
        self._start(name, self._known_id)
        self._since = self._at
        self._arguments = 0
        self._quoted = False
        if self._tags is not None:
            self._step = self._in_tags
        else:
            self._stream = GemmaStream() if self._syntax.arguments == "gemma" else JsonStream()
            self._step = self._before_json
        return True

    # Arguments as one value.

    def _before_json(self) -> bool:
        at = self._behind_space(self._at)
        if at == len(self._text):
            if self._ended:
                self._step = self._in_text
            return False
        self._at = at
        self.calls[-1].begins = self.place
        self._quoted = self._text[at] == '"'
        if self._text[at] in '{"':
            self._step = self._in_json
            return True
        met = [self._meets(mark) for mark in (*self._closes[:1], self._syntax.close, *self._begins) if mark]
        if any(end is not None and end >= 0 for end in met):
            return self._ended_call()
        return False if None in met else self._broken()

    def _in_json(self) -> bool:
        self._at = self._stream.feed(self._text, self._at)
        if not self._quoted:
            self._grow(self._stream.take())
        if self._stream.broken:
            return self._broken()
        if not self._stream.done:
            return False
        if self._quoted:
            arguments, whole = object_within(json.loads(self._stream.text))
            self._grow(arguments)
            if not whole:
                return self._broken()
        return self._ended_call()

    def _ended_call(self) -> bool:
        self._end()
        self._closed, self._step = 0, self._behind_call
        return True

    def _broken(self) -> bool:
        self._break()
        self._step = self._skipping
        return True

    def _skipping(self) -> bool:
        """Behind a mistake, up to a mark that ends the call or begins another one."""
        ends = (*self._closes[-1:], *filter(None, (self._syntax.close,)), *self._begins)
        found = first_of(ends, self._text[self._at :]) if ends else None
        if found is None:
            kept = 0 if self._ended else tail_that_may_become(ends, self._text[self._at :])
            self._at = self._since = len(self._text) - kept
            return False
        self._at += found[0]
        self._closed, self._step = 0, self._behind_call
        return True

    def _behind_call(self) -> bool:
        """The marks behind the arguments; each may be missing."""
        while self._closed < len(self._closes):
            end = self._meets(self._closes[self._closed])
            if end is None:
                return False
            self._at = len(self._text) if self._is_cut(self._closes[self._closed]) else max(self._at, end)
            self._closed += 1
        self._since = self._at
        if self._behind_space(self._at) == len(self._text):
            self._step = self._in_text if self._ended else self._step
            return False
        self._step = self._before_call
        return True

    # Arguments with marks of their own.

    def _in_tags(self) -> bool:
        assert self._tags is not None
        tags = self._tags
        closed = self._meets(self._closes[0]) if self._closes else self._at
        if closed is None:
            return False
        if closed < 0:
            end = self._meets(tags.key_open)
            if end is not None and end >= 0:
                return self._in_key(tags, end)
            return self._broken() if end is not None and self._behind_space(self._at) < len(self._text) else False
        self._grow("}" if self._arguments else "{}")
        return self._ended_call()

    def _in_key(self, tags: TagArguments, at: int) -> bool:
        first, *more = tags.key_close.split()
        end = self._text.find(first, at)
        if end < 0 or end - at > MOST_NAME:
            if len(self._text) - at > MOST_NAME:
                return self._broken()
            return False
        behind = self._meets(" ".join((first, *more)), end)
        if behind is None:
            return False
        if behind < 0:
            return self._broken()
        key = self._text[at:end].strip()
        types = types_of(self._tools.get(self.calls[-1].name), key)
        is_text = types == {"string"}
        if tags.text_word:
            word = WORD.match(self._text, behind)
            opened = None if word is None else self._meets(tags.value_open, word.end())
            if word is None or opened is None or word.end() == len(self._text):
                return False if len(self._text) - behind < MOST_NAME and not self._ended else self._broken()
            if opened < 0:
                return self._broken()
            is_text, behind = word[0] == tags.text_word, opened
        opening = (tags.value_open or tags.key_close)[-1:]
        if opening.isspace():  # such as a line end between the mark and the value, which is no part of it
            if behind == len(self._text) and not self._ended:
                return False
            behind += self._text[behind : behind + 1] == opening
        self._ends = tags.value_close.replace(KEY, key)
        if tags.cdata and self._text.startswith(CDATA, behind):
            behind += len(CDATA)
            self._ends = CDATA_END + self._ends
            is_text = True
        elif tags.cdata and not self._ended and CDATA.startswith(self._text[behind:]):
            return False
        self._key, self._is_text, self._at = key, is_text, behind
        self._grow(("{" if not self._arguments else ", ") + json.dumps(key, ensure_ascii=False) + ": ")
        self._grow('"' if is_text else "")
        self._arguments += 1
        self._looked = 0
        self._step = self._in_value
        return True

    def _in_value(self) -> bool:
        bare = self._ends.strip()
        gap = self._ends[: len(self._ends) - len(self._ends.lstrip())]
        at = self._at + self._looked
        while (end := self._text.find(bare, at)) >= 0:
            closes = self._closes_value(end + len(bare))
            if closes is None:
                break
            if closes:
                value = self._text[self._at : end].removesuffix(gap) if gap else self._text[self._at : end]
                types = types_of(self._tools.get(self.calls[-1].name), self._key)
                self._grow(escaped(value) + '"' if self._is_text else json_of(value, types))
                self._at = end + len(bare)
                self._step = self._in_tags
                return True
            at = end + 1
        if not self._is_text:  # read in one piece, and no part of it twice
            self._looked = (end if end >= 0 else max(at, len(self._text) - len(bare))) - self._at
        else:
            stop = end if end >= 0 else len(self._text) - tail_that_may_become([bare], self._text)
            stop = max(self._at, stop - len(gap))
            self._grow(escaped(self._text[self._at : stop]))
            self._at = stop
        return False

    def _closes_value(self, at: int) -> bool | None:
        """Whether the mark that ends at `at` closes the value: another argument follows, or the end of the call."""
        assert self._tags is not None
        met = [self._meets(mark, at) for mark in (self._tags.key_open, *self._closes[:1])]
        if any(end is not None and end >= 0 for end in met):
            return True
        if None in met:
            return None
        return self._behind_space(at) == len(self._text) if self._ended else False
