"""How a chat template takes tools, and how its model writes calls of them: found by rendering, then by a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from runtime.base.types import Message, Tool, ToolCall
from runtime.engine.call_derivation import FIRST, KEY_A, KEY_B, SECOND, VALUE_A, derived_syntax
from runtime.engine.call_syntax import CallSyntax, JsonCalls, TaggedCalls, begins, marks_of
from runtime.engine.call_table import GENERIC, completed, named_syntax
from runtime.engine.chat_template import PLAIN_CALLS, CallsAs, ChatTemplate
from runtime.engine.markers import CallMarks, ThinkingMarkers, tokens_among
from runtime.engine.template_variables import Variables, probe, template_variables
from runtime.engine.thought_form import ANSWER, QUESTION

Ids = Literal["any", "nine", "numbered"]
# How a template may take calls, the most common way first.
_WAYS = (CallsAs(), CallsAs(texts=True), CallsAs(alone=True), CallsAs(texts=True, alone=True))

_ASKED = Message("user", QUESTION)
_RESULT, _DESCRIPTION = "Qzresultqz", "Qzdescriptionqz"
_PARAMETERS = {"type": "object", "properties": {KEY_A: {"type": "string"}, KEY_B: {"type": "integer"}}}
_TOOLS = (Tool(FIRST, _DESCRIPTION, _PARAMETERS), Tool(SECOND, _DESCRIPTION, _PARAMETERS))
# Ids of calls, as templates want them: any; nine letters and digits (Mistral); the name and a number (Kimi K2).
_IDS: dict[Ids, tuple[str, str]] = {
    "any": ("call_qzid1", "call_qzid2"),
    "nine": ("qzidqzid1", "qzidqzid2"),
    "numbered": (f"functions.{FIRST}:0", f"functions.{SECOND}:1"),
}
# The variables in which templates look for tools. The second is SmolLM3's, the third that of Firefunction, as a text.
_LISTS: tuple[tuple[str, ...], ...] = (("tools",), ("tools", "xml_tools"), ("tools", "functions"))


@dataclass(frozen=True, slots=True)
class ToolForm:
    """`lists`: the variables in which the template takes tools, () if dsr lists them in the system prompt.

    `writes`: how the template gets earlier calls, None if dsr writes them. `returns`: whether it takes the results of
    tools; otherwise they are written as if the user said them. `ids`: the ids that it takes. `parallel`: it writes
    several calls in one answer. `known`: whether the model was told by somebody, its template or the table, how to
    write calls; otherwise dsr asks for a form that many models know. `tokens`: marks that are one token each.
    """

    syntax: CallSyntax
    lists: tuple[str, ...]
    writes: CallsAs | None
    returns: bool
    ids: Ids = "any"
    parallel: bool = True
    known: bool = True
    tokens: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def begins(self) -> tuple[str, ...]:
        """The marks that begin calls in an answer; () if calls are only told by what the answer begins with."""
        return begins(self.syntax)

    @property
    def bare(self) -> bool:
        """Whether an answer may begin with a call without marks."""
        return isinstance(self.syntax, JsonCalls) and self.syntax.bare

    @property
    def writes_json(self) -> bool:
        """Whether the arguments of a call are JSON."""
        return isinstance(self.syntax, JsonCalls) or self.syntax.arguments == "json"

    @property
    def header(self) -> str:
        """The text in the header of a message that makes it a call; "" in formats without such headers."""
        return self.syntax.call_open if isinstance(self.syntax, TaggedCalls) and self.syntax.header else ""

    @property
    def call_marks(self) -> CallMarks:
        """Where calls begin in an answer."""
        return CallMarks(() if self.header else self.begins, self.header, self.bare, self.tokens)

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts of the format that may be control tokens: they must be visible."""
        return marks_of(self.syntax)

    def with_tokens(self, has_token: Callable[[str], bool]) -> ToolForm:
        """The same form; `has_token` tells which texts the vocabulary has as one token."""
        return replace(self, tokens=tokens_among(self.begins, has_token))


def tool_variables(lists: Sequence[str], tools: Sequence[Tool]) -> dict[str, object]:
    """The variables with which a template gets the tools."""
    listed = [as_openai(tool) for tool in tools]
    if not tools:
        return {}
    return {name: json.dumps(listed) if name == "functions" else listed for name in lists}


def as_openai(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI's API has it, which is what templates expect."""
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


@lru_cache(maxsize=8)
def tool_form(template: ChatTemplate, markers: ThinkingMarkers | None) -> ToolForm:
    """The form of a template. `markers` are its thinking markers."""
    lists = next((names for names in _LISTS if _lists(template, names)), ())
    variables = {**template_variables(template).on, **tool_variables(lists, _TOOLS)}
    writes, ids, turn = _writing(template, variables)
    syntax = None if turn is None else _derived(template, variables, markers, turn, _IDS[ids])
    named = named_syntax(template.source, syntax)
    if syntax is not None:
        syntax = completed(syntax, template.source, markers.header if markers else None)
    chosen = named or syntax
    if isinstance(chosen, TaggedCalls) and chosen.numbered:
        ids = "numbered"
    both = turn is not None and SECOND in (turn([(FIRST, {KEY_A: VALUE_A}), (SECOND, {KEY_A: VALUE_A})]) or "")
    return ToolForm(
        chosen or GENERIC,
        lists,
        writes if chosen else None,
        _returns(template, variables, writes, _IDS[ids]),
        ids,
        parallel=both or writes is None,
        known=chosen is not None,
    )


def _lists(template: ChatTemplate, names: tuple[str, ...]) -> bool:
    on = template_variables(template).on
    written = probe(template, {**on, **tool_variables(names, _TOOLS)}, talk=(_ASKED,)) or ""
    return FIRST in written and KEY_A in written


Turn = Callable[[Sequence[tuple[str, Mapping[str, Any]]]], "str | None"]


def _writing(template: ChatTemplate, variables: Variables) -> tuple[CallsAs | None, Ids, Turn | None]:
    """How the template takes calls, and a function that renders a turn with calls; None if it writes none."""
    for way in _WAYS:
        for ids in _IDS:
            turn = _turns(template, variables, way, ids)
            written = turn([(FIRST, {KEY_A: VALUE_A})]) or ""
            # A template that takes the other kind writes a dictionary as Python does, or a text as JSON does.
            foreign = f"'{KEY_A}': '" in written or f'\\"{KEY_A}\\"' in written
            if FIRST in written and VALUE_A in written and not foreign:
                if not way.alone and FIRST not in (_turns(template, variables, way, ids, ANSWER)(((FIRST, {}),)) or ""):
                    way = replace(way, alone=True)
                return way, ids, _turns(template, variables, way, ids)
    return None, "any", None


def _turns(template: ChatTemplate, variables: Variables, way: CallsAs, ids: Ids, content: str = "") -> Turn:
    def turn(said: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
        calls = tuple(
            ToolCall(known_id, name, json.dumps(arguments))
            for known_id, (name, arguments) in zip(_IDS[ids], said, strict=False)
        )
        return _behind_question(template, variables, (_ASKED, Message("assistant", content, calls=calls)), way)

    return turn


def _behind_question(template: ChatTemplate, variables: Variables, talk: Sequence[Message], way: CallsAs) -> str | None:
    written = probe(template, variables, talk=talk, add_generation_prompt=False, calls=way)
    return written.rpartition(QUESTION)[2] if written and QUESTION in written else None


def _derived(
    template: ChatTemplate, variables: Variables, markers: ThinkingMarkers | None, turn: Turn, ids: tuple[str, str]
) -> CallSyntax | None:
    plain = _behind_question(template, variables, (_ASKED, Message("assistant", ANSWER)), PLAIN_CALLS) or ""
    before, _, behind = plain.partition(ANSWER)
    dropped = (*markers.texts, markers.open) if markers else ()
    try:
        return derived_syntax(turn, (before, behind), ids, dropped)
    except ValueError:  # a text that is not where it should be: no format that can be read
        return None


def _returns(template: ChatTemplate, variables: Variables, writes: CallsAs | None, ids: tuple[str, str]) -> bool:
    call = (ToolCall(ids[0], FIRST, "{}"),) if writes else ()
    asked = Message("assistant", "" if call else ANSWER, calls=call)
    talk = (_ASKED, asked, Message("tool", _RESULT, call_id=ids[0], name=FIRST))
    return _RESULT in (probe(template, variables, talk=talk, calls=writes or PLAIN_CALLS) or "")
