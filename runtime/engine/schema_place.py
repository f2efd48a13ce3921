"""Where a JSON Schema cannot be used: the compiler of grammars says why, and not where."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runtime.engine.grammar import escaped

# Keywords by what they hold (JSON Schema 2020-12, core). Definitions come first: a reference to a bad one fails, too,
# and the definition is the place to mend.
_NAMED = ("$defs", "definitions", "properties", "patternProperties", "dependentSchemas")
_LISTED = ("prefixItems", "allOf", "anyOf", "oneOf", "items")
_SINGLE = (
    "items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "contains",
    "propertyNames", "not", "if", "then", "else",
)  # fmt: skip
_MOST_TRIES = 300
_MOST_SECONDS = 1.0

# A schema -> why it cannot be used; "" if it can.
Complaint = Callable[[Mapping[str, Any]], str]


def place_of(schema: Mapping[str, Any], complaint: Complaint, now: Callable[[], float] = time.monotonic) -> str:
    """The JSON pointer of the smallest part of `schema` that fails alone as the whole does; "" is the whole.

    A part is tried with the definitions of the whole, so that its references lead somewhere. Where that takes long, the
    place is that of a larger part. `now` is a clock in seconds.
    """
    until = now() + _MOST_SECONDS
    why = complaint(schema)
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    place, left = "", _MOST_TRIES
    while True:
        for step, part in _parts(schema):
            left -= 1
            if left < 0 or now() > until:
                return place
            if complaint({**shared, **part}) == why:
                place, schema = place + step, part
                break
        else:
            return place


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for keyword in _NAMED:
        named = schema.get(keyword)
        for name, part in named.items() if isinstance(named, dict) else ():
            if isinstance(part, dict):
                yield f"/{keyword}/{escaped(name)}", part
    for keyword in _LISTED:
        listed = schema.get(keyword)
        for index, part in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(part, dict):
                yield f"/{keyword}/{index}", part
    for keyword in _SINGLE:
        if isinstance(part := schema.get(keyword), dict):
            yield f"/{keyword}", part
