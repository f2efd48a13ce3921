"""From the text of an answer to its calls of tools, while it arrives."""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.base.types import Tool
from runtime.engine.call_reader import CallReader, Grown
from runtime.engine.call_syntax import JsonCalls, TaggedCalls
from runtime.engine.json_calls import JsonReader
from runtime.engine.python_calls import PythonReader
from runtime.engine.tagged_calls import TaggedReader
from runtime.engine.tool_form import Ids, ToolForm

__all__ = ["CallReader", "Calling", "Grown", "call_reader", "ids_of"]

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Calling:
    """What a sample may call, and how its model writes that. Without `parallel` it ends after its first call."""

    form: ToolForm
    tools: tuple[Tool, ...]
    parallel: bool = True

    def begun_by(self, prompt: str) -> bool:
        """Whether a prompt ends in the mark of a call, so that even text is written as one."""
        syntax = self.form.syntax
        if not isinstance(syntax, TaggedCalls) or not syntax.text_name:
            return False
        return prompt.rstrip().endswith(syntax.call_open)


def call_reader(calling: Calling, new_id: Callable[[int, str], str], *, begun: bool = False) -> CallReader:
    """A reader for the text of an answer from the first mark of a call on. `begun`: the prompt ends in that mark."""
    syntax = calling.form.syntax
    if isinstance(syntax, JsonCalls):
        return JsonReader(syntax, calling.tools, new_id, bare=calling.form.bare)
    if syntax.arguments == "python":
        return PythonReader(syntax, calling.tools, new_id)
    return TaggedReader(syntax, calling.tools, new_id, begun=begun)


def ids_of(style: Ids, seed: Sequence[object]) -> Callable[[int, str], str]:
    """A function that makes the id of a call from its index and name: always the same for one `seed`."""

    def new_id(index: int, name: str) -> str:
        if style == "numbered":
            return f"functions.{name}:{index}"
        digest = hashlib.blake2b(repr((*seed, index)).encode(), digest_size=16).digest()
        drawn = "".join(random.Random(digest).choices(_ALPHABET, k=9 if style == "nine" else 24))
        return drawn if style == "nine" else f"call_{drawn}"

    return new_id
