"""Grammars for calls that an answer must have, in llguidance's Lark. They follow the syntax of the model's template.

Source of the language: github.com/guidance-ai/llguidance, docs/syntax.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runtime.base.errors import Incompatible
from runtime.base.types import Tool, ToolCall
from runtime.engine.call_reader import types_of
from runtime.engine.call_syntax import KEY, JsonCalls, TagArguments, TaggedCalls
from runtime.engine.grammar import JSON_OPTIONS, Grammar
from runtime.engine.markers import TAG
from runtime.engine.other_arguments import GEMMA_QUOTE
from runtime.engine.tool_form import ToolForm
from runtime.engine.tool_use import ToolUse

_ID, _ARGUMENTS = "\0id\0", "\0arguments\0"
_IDS = {"any": r"/[A-Za-z0-9_-]{1,40}/", "nine": r"/[A-Za-z0-9]{9}/", "numbered": r"/[0-9]{1,4}/"}
_MORE = "{0,15}"  # calls behind the first: small models never stop otherwise
# Values in Gemma's notation; `gemma_text` has one of its quotation marks on each side.
_GEMMA = """
value: gemma_text | /-?[0-9]+(\\.[0-9]+)?/ | "true" | "false" | "null" | array | object
array: "[" (value ("," value)*)? "]"
object: "{" (/[A-Za-z0-9_]+/ ":" value ("," /[A-Za-z0-9_]+/ ":" value)*)? "}"
"""


def call_grammar(form: ToolForm, use: ToolUse, control: Callable[[str], int | None]) -> Grammar | None:
    """What an answer must be that calls tools; None if it may be anything else, too.

    `control` returns the control token that a text is, None for another text: text does not spell these. Raises
    Incompatible for a model whose calls stand in headers of messages.
    """
    if use.choice in ("auto", "none"):
        return None
    if form.header:
        raise Incompatible(
            "this model names a tool in the header of a message, so that no answer can be forced to call one",
            hint='let the model choose: tool_choice "auto"',
        )
    allowed = use.callable
    return Grammar("lark", _Writer(form, control).grammar(allowed.tools, several=use.parallel and form.parallel))


class _Writer:
    """Writes the rules; `_rules` are those so far.

    llguidance's lexer takes the longest text that may come next, and never less. So texts that stand together are one.
    """

    def __init__(self, form: ToolForm, control: Callable[[str], int | None]) -> None:
        self._form, self._control = form, control
        self._rules: list[str] = []

    def grammar(self, tools: Sequence[Tool], *, several: bool) -> str:
        syntax = self._form.syntax
        calls = [self._rule(f"call{number}", self._call(number, tool)) for number, tool in enumerate(tools)]
        call = self._rule("call", " | ".join(calls))
        if isinstance(syntax, JsonCalls):
            start = self._around_json(syntax, call, several)
        elif syntax.arguments == "python":
            more = f' ("," " "? {call}){_MORE}' if several else ""
            start = f'{self._mark(syntax.open)} "[" {call}{more} "]" {self._mark(syntax.close)}'
        else:
            between = self._mark(syntax.between) if several else ""
            more = f" ({between} {call}){_MORE}" if several else ""
            start = f"{self._mark(syntax.open)} {call}{more} {self._mark(syntax.close)}"
        extra = _GEMMA if isinstance(syntax, TaggedCalls) and syntax.arguments == "gemma" else ""
        return "\n".join((f"start: {start}", *self._rules)) + extra

    def _rule(self, name: str, body: str) -> str:
        self._rules.append(f"{name}: {body}")
        return name

    def _around_json(self, syntax: JsonCalls, call: str, several: bool) -> str:
        opened, closed, gap = self._mark(syntax.open), self._mark(syntax.close), self._mark(syntax.separator)
        if syntax.listed:
            more = f' ("," " "? {call}){_MORE}' if several else ""
            return f'{opened} "[" {call}{more} "]" {closed}'
        if not several or not (opened or syntax.separator):
            return f"{opened} {call} {closed}"
        if syntax.each:
            return f"{opened} {call} {closed} ({gap} {opened} {call} {closed}){_MORE}"
        return f"{opened} {call} ({gap} {call}){_MORE} {closed}"

    def _mark(self, text: str) -> str:
        """A mark, in which tags that are control tokens are these."""
        parts = []
        at = 0
        for tag in TAG.finditer(text):
            token = self._control(tag[0])
            if token is not None:
                parts += [_text(text[at : tag.start()]), f"<[{token}]>"]
                at = tag.end()
        return " ".join(filter(None, (*parts, _text(text[at:]))))

    def _until(self, mark: str) -> str:
        """Any text up to the mark, and the mark."""
        tag = TAG.match(mark)
        if tag is not None and self._control(tag[0]) is not None:
            return f"/(?s:.*)/ {self._mark(mark)}"
        name = f"text{len(self._rules)}"
        self._rules.append(f"{name}[suffix={_text(mark)}]: /(?s:.*)/")
        return name

    def _call(self, number: int, tool: Tool) -> str:
        syntax = self._form.syntax
        if isinstance(syntax, JsonCalls):
            alone = replace(syntax, open="", close="", listed=False)
            written = alone.written((ToolCall(_ID, tool.name, _ARGUMENTS),))
            before, _, behind = written.replace(json.dumps(_ID), f'"{_ID}"').partition(_ARGUMENTS)
            return f"{self._with_id(before)} {_json(_object(tool))} {self._with_id(behind)}"
        if syntax.arguments == "python":

            def named(key: str, schema: Any, lead: str) -> str:
                return f"{_text(f'{lead}{key}=')} {_json(schema)}"

            return f'{_text(tool.name + "(")} {self._in_order(number, tool, ", ", named)} ")"'
        before = self._mark(syntax.call_open + ("" if syntax.id_close else tool.name))
        if syntax.id_close:
            before += f" {_IDS[self._form.ids]} {self._mark(syntax.id_close + tool.name)}"
        if syntax.id_open:
            number_or_id = _IDS["numbered" if syntax.numbered else self._form.ids]
            before += f" {self._mark(syntax.id_open)} {number_or_id}"
        arguments = self._arguments(number, tool, syntax)
        return f"{before} {self._mark(syntax.name_close)} {arguments} {self._mark(syntax.call_close)}"

    def _with_id(self, text: str) -> str:
        before, known, behind = text.partition(_ID)
        return f"{_text(before)} {_IDS[self._form.ids]} {_text(behind)}" if known else _text(text)

    def _arguments(self, number: int, tool: Tool, syntax: TaggedCalls) -> str:
        tags = syntax.arguments
        if isinstance(tags, TagArguments):
            return self._in_order(number, tool, "", lambda key, schema, _: self._tagged(tool, tags, key, schema))
        if tags != "gemma":
            return _json(_object(tool))
        if not any(rule.startswith("gemma_text:") for rule in self._rules):
            self._rule("gemma_text", f"{self._mark(GEMMA_QUOTE)} {self._until(GEMMA_QUOTE)}")

        def named(key: str, schema: Any, lead: str) -> str:
            return f"{_text(f'{lead}{key}:')} value"

        return f'"{{" {self._in_order(number, tool, ",", named)} "}}"'

    def _tagged(self, tool: Tool, tags: TagArguments, key: str, schema: Any) -> str:
        is_text = types_of(tool, key) == {"string"}
        word = tags.text_word if is_text else tags.other_word
        opening = self._mark(f"{tags.between}{tags.key_open}{key}{tags.key_close}{word}{tags.value_open}")
        close = tags.value_close.replace(KEY, key)
        if not is_text:
            return f"{opening} {_json(schema)} {self._mark(close)}"
        options = schema.get("enum", ()) if isinstance(schema, Mapping) else ()
        if options:
            return f"{opening} ({' | '.join(self._mark(f'{each}{close}') for each in options)})"
        return f"{opening} {self._until(close)}"

    def _in_order(self, number: int, tool: Tool, gap: str, write: Callable[[str, Any, str], str]) -> str:
        """The arguments in the order of the schema, those that are not required at will.

        `write` gets the key, the schema, and the text before it: nothing, or the `gap` behind another argument.
        """
        schema = _object(tool)
        shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
        required = schema.get("required") or ()
        rest = first = ""
        for position, (key, given) in reversed([*enumerate(schema["properties"].items())]):
            whole = {**given, **shared} if isinstance(given, Mapping) and shared else given
            begins, follows = f"{write(key, whole, '')} {rest}", f"{write(key, whole, gap)} {rest}"
            if key not in required:
                begins, follows = f"{begins} | {first}", f"({follows} | {rest})" if rest else f"({follows})?"
            first = self._rule(f"first{number}_{position}", begins)
            rest = self._rule(f"rest{number}_{position}", follows)
        return first


def _object(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, which are an object."""
    schema: dict[str, Any] = {"type": "object", "properties": {}, **tool.parameters}
    if not isinstance(schema["properties"], Mapping):
        schema["properties"] = {}
    return schema


def _json(schema: Any) -> str:
    whole = {**schema, "x-guidance": JSON_OPTIONS} if isinstance(schema, Mapping) else schema
    return f"%json {json.dumps(whole)}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
