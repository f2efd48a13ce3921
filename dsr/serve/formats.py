"""The form of an answer in OpenAI's and llama-server's words becomes a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dsr.serve.http.errors import Refused
from runtime.base.errors import UsageError
from runtime.engine.grammar import JSON_OBJECT, Grammar


def grammar_of(
    response_format: Mapping[str, Any] | None,
    json_schema: Mapping[str, Any] | None = None,
    grammar: str | None = None,
    *,
    place: str = "response_format",
) -> Grammar | None:
    """The grammar of `response_format`, or of llama-server's own fields; None for free text.

    Raises Refused for a schema that is not valid, and for two forms at once.
    """
    forms = [each for each in (_of_format(response_format, place), schema_grammar(json_schema, "json_schema")) if each]
    if grammar:
        forms.append(Grammar("gbnf", grammar))
    if len(forms) > 1:
        raise Refused(400, "an answer has one form: response_format, json_schema or grammar", place=place)
    return forms[0] if forms else None


def form_of(
    response_format: Mapping[str, Any] | None, json_schema: Mapping[str, Any] | None, grammar: str | None
) -> str:
    """The field that has the form of the answer."""
    given = {"grammar": grammar, "json_schema": json_schema, "response_format": response_format}
    return next((name for name, value in given.items() if value), "")


def _of_format(given: Mapping[str, Any] | None, place: str) -> Grammar | None:
    kind = (given or {}).get("type", "text")
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        schema = given.get("schema")
        return JSON_OBJECT if schema is None else schema_grammar(schema, f"{place}.schema")
    if kind == "json_schema":
        # The Responses API and Anthropic's have the schema beside the type, the chat API in an object of its own.
        nested = "json_schema" in given
        holder = given.get("json_schema", given)
        schema = holder.get("schema") if isinstance(holder, Mapping) else None
        place = f"{place}.json_schema.schema" if nested or place == "response_format" else f"{place}.schema"
        if schema is None:
            raise Refused(400, f"{place} is missing", place=place)
        return schema_grammar(schema, place)
    raise Refused(400, f"{place}.type: text, json_object or json_schema", place=f"{place}.type")


def schema_grammar(schema: Any, place: str) -> Grammar | None:
    """The grammar of a JSON Schema; None without one. Raises Refused, which names the place."""
    if schema is None:
        return None
    try:
        return Grammar("json_schema", json.dumps(schema))
    except UsageError as error:
        raise Refused(400, f"{place}: {error.message}", hint=error.hint, place=place) from None
