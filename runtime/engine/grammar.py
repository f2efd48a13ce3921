"""The form that an answer must have, checked as far as that is possible without a vocabulary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from runtime.base.errors import UsageError
from runtime.base.quoted import quoted_name, spelled

# "json": any JSON value. "json_schema": a JSON Schema, draft 2020-12. "regex": of Rust's crate regex, without
# look-around. "lark": Lark as llguidance reads it (its docs/syntax.md). "gbnf": llama.cpp's grammars (grammars/).
GrammarKind = Literal["json", "json_schema", "regex", "lark", "gbnf"]

# llguidance compiles a grammar in one call that nothing can stop. Within these bounds no grammar that we know takes
# more than about two seconds, and ordinary ones take a few milliseconds. For comparison: OpenAI's API takes schemas of
# 5,000 properties, 10 levels, and 120,000 characters of names.
_MOST_CHARACTERS = {"json": 0, "json_schema": 200_000, "regex": 10_000, "lark": 100_000, "gbnf": 100_000}
_MOST_VALUES = 20_000  # in a schema
_MOST_NAMED = 1000  # properties of one object; the time grows with their square
_MOST_PATTERN = 10_000  # characters of all patterns of a schema together
_DEEPEST = 100  # levels; llguidance's reader of JSON stops at 128


@dataclass(frozen=True, slots=True)
class Grammar:
    """An answer must match `text`, a grammar of this `kind`; for "json", `text` is empty.

    Raises UsageError for a text that is too long, and for a schema that is not JSON, too deep or too large. The message
    names the place as a JSON pointer (RFC 6901). Whether the grammar compiles shows when a backend gets it.
    """

    kind: GrammarKind
    text: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(GrammarKind):
            raise UsageError(f"there is no grammar of the kind {spelled(self.kind)}", hint=_KINDS)
        if len(self.text) > (most := _MOST_CHARACTERS[self.kind]):
            raise UsageError(f"the {self.kind} grammar has {len(self.text):,} characters, and {most:,} are possible")
        if self.kind == "json_schema":
            self.schema()
        elif self.kind != "json" and not self.text.strip():
            raise UsageError(f"the {self.kind} grammar is empty")

    def schema(self) -> dict[str, Any]:
        """The schema of the kinds "json" and "json_schema" as an object."""
        if self.kind == "json":
            return {}
        read = _read(self.text)
        _check_size(read)
        if read is True:
            return {}
        if not isinstance(read, dict):
            raise UsageError(f"a JSON Schema is an object, not {spelled(read)}")
        return read


_KINDS = f"it is one of {', '.join(get_args(GrammarKind))}"


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise UsageError(f"the schema is no JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise UsageError(f"the schema is nested more than {_DEEPEST} levels deep") from None


def _no_number(name: str) -> Any:
    raise UsageError(f"the schema is no JSON: it has {name}, which JSON does not know")


def _integer(text: str) -> int:
    if len(text) > 300:
        raise UsageError(f"the schema has a number of {len(text):,} digits")
    return int(text)


def _check_size(schema: Any) -> None:
    """Walk without recursion. Raises UsageError at the first value that is too deep, or one too many."""
    waiting: list[tuple[Any, int, str]] = [(schema, 1, "")]
    seen = patterns = 0
    while waiting:
        value, depth, place = waiting.pop()
        seen += 1
        patterns += _pattern(value, place)
        if depth > _DEEPEST:
            raise UsageError(f"the schema is nested more than {_DEEPEST} levels deep, at {quoted_name(place)}")
        if seen > _MOST_VALUES:
            raise UsageError(f"the schema has more than {_MOST_VALUES:,} values")
        if patterns > _MOST_PATTERN:
            raise UsageError(f"the patterns of the schema have more than {_MOST_PATTERN:,} characters")
        if place.endswith(_NAMING) and isinstance(value, (dict, list)) and len(value) > _MOST_NAMED:
            raise UsageError(f"{quoted_name(place)} has {len(value):,} names, and {_MOST_NAMED:,} are possible")
        if isinstance(value, dict):
            waiting += ((each, depth + 1, f"{place}/{escaped(key)}") for key, each in value.items())
        elif isinstance(value, list):
            waiting += ((each, depth + 1, f"{place}/{index}") for index, each in enumerate(value))


_NAMING = ("/properties", "/required", "/patternProperties", "/dependentRequired")


def _pattern(value: Any, place: str) -> int:
    """The characters of regular expressions in a value."""
    if isinstance(value, str):
        return len(value) if place.endswith("/pattern") else 0
    return sum(map(len, value)) if isinstance(value, dict) and place.endswith("/patternProperties") else 0


def escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


# How llguidance reads a JSON Schema. White space as llama.cpp allows it (common/json-schema-to-grammar.cpp,
# SPACE_RULE): without a bound, small models fill their answer with it. Everything else in `x-guidance` of a client's
# schema is replaced, too.
JSON_OPTIONS: dict[str, object] = {
    "whitespace_flexible": True,
    "whitespace_pattern": r" |\n{1,2}[ \t]{0,20}",
    "coerce_one_of": False,  # an answer that matches two of the alternatives would not be valid
    "lenient": False,  # a keyword that is not obeyed is refused
}
JSON_OBJECT = Grammar("json_schema", '{"type": "object"}')
