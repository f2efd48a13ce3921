"""Arguments that are no JSON, as JSON: Gemma's own notation, and calls written as Python."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from runtime.engine.json_stream import JsonStream
from runtime.engine.text_streams import tail_that_may_become

# Gemma 4: {key:<|"|>text<|"|>,other:[1,true]}. Source: llama.cpp, common/parsers/gemma4.cpp.
GEMMA_QUOTE = '<|"|>'
_KEY = re.compile(r"[^:{}\[\],<]*")
_MOST_PYTHON = 100_000  # characters of a call; Python's parser takes memory for each
_JSON_WORDS = {"true": True, "false": False, "null": None}


class GemmaStream(JsonStream):
    """As `JsonStream`, for Gemma's notation: keys without quotation marks, and a token in place of those of texts.

    It leaves the end of a text to its caller if more must follow to read it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._quoted = False

    def feed(self, text: str, at: int = 0) -> int:
        while at < len(text) and not self.done and not self.broken:
            if self._quoted:
                after = self._through_text(text, at)
            elif self._string:
                after = self._in_string(text, at)
            elif self._expect in ("key", "key or }") and text[at] not in '}"' and not text[at].isspace():
                after = self._key(text, at)
            elif not self._word and self._expect in ("value", "value or ]") and text[at] == "<":
                after = self._opening(text, at)
            else:
                after = self._outside(text, at)
            if after < 0:
                return at
            at = after
        return at

    def _opening(self, text: str, at: int) -> int:
        if text.startswith(GEMMA_QUOTE, at):
            self._quoted = True
            super().feed('"')
            return at + len(GEMMA_QUOTE)
        if not GEMMA_QUOTE.startswith(text[at:]):
            self.broken = True
        return -1

    def _through_text(self, text: str, at: int) -> int:
        end = text.find(GEMMA_QUOTE, at)
        stop = end if end >= 0 else len(text) - tail_that_may_become([GEMMA_QUOTE], text[at:])
        self._out.append(json.dumps(text[at:stop], ensure_ascii=False)[1:-1])
        if end < 0:
            return stop if stop > at else -1
        self._quoted = False
        super().feed('"')
        return end + len(GEMMA_QUOTE)

    def _key(self, text: str, at: int) -> int:
        quote = len(GEMMA_QUOTE)
        if text.startswith(GEMMA_QUOTE, at):
            end = text.find(GEMMA_QUOTE, at + quote)
            key, after = text[at + quote : end], end + quote
        elif GEMMA_QUOTE.startswith(text[at : at + quote]):
            return -1
        else:
            found = _KEY.match(text, at)
            assert found is not None
            key, after, end = found[0].strip(), found.end(), found.end() if found.end() < len(text) else -1
            if len(key) > 1000:
                self.broken = True
        if end < 0:
            return -1
        super().feed(json.dumps(key, ensure_ascii=False))
        return after


def gemma_text(value: Any) -> str:
    """A value in Gemma's notation, keys in order, as its template writes it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{gemma_text(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(gemma_text, value)) + "]"
    return GEMMA_QUOTE + value + GEMMA_QUOTE if isinstance(value, str) else json.dumps(value)


class PythonCallEnd:
    """Finds where a call such as `f(a='x', b=[1])` ends, without reading any of it twice."""

    def __init__(self) -> None:
        self._seen = self._depth = 0
        self._quote = ""

    def find(self, text: str) -> int:
        """The end of the call that `text` begins with, -1 if it is not there yet. A text begins with the last one."""
        at = self._seen
        while at < len(text):
            character = text[at]
            if self._quote and character == "\\":
                if at + 1 == len(text):
                    break
                at += 1
            elif self._quote:
                self._quote = "" if character == self._quote else self._quote
            elif character in "'\"":
                self._quote = character
            elif character in "([{":
                self._depth += 1
            elif character in ")]}":
                self._depth -= 1
                if self._depth <= 0:
                    return at + 1
            at += 1
        self._seen = at
        return -1


def read_python_call(text: str) -> tuple[str, str] | None:
    """Name and JSON arguments of a call in Python; None if it is none. Words of JSON are values, too."""
    if len(text) > _MOST_PYTHON:
        return None
    try:
        call = ast.parse(_without_line_ends(text.strip()), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(each.arg is None for each in call.keywords):
            return None
        arguments = {str(each.arg): _value(each.value) for each in call.keywords}
        return ast.unparse(call.func), json.dumps(arguments, ensure_ascii=False)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _without_line_ends(text: str) -> str:
    """The call with the line ends inside of its texts escaped, which Python wants and templates forget."""
    return re.sub(
        r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"",
        lambda found: found[0].replace("\n", "\\n").replace("\r", "\\r"),
        text,
        flags=re.DOTALL,
    )


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _JSON_WORDS:
        return _JSON_WORDS[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(key): _value(each) for key, each in zip(node.keys, node.values, strict=True) if key is not None}
    return ast.literal_eval(node)


def python_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as Python writes it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
