"""Asks models for an answer to each of some hundred JSON Schemas, and validates the answers with `jsonschema`.

    python tests/peers/schemas.py [MODEL.gguf ...] [--count 16] [--seed 1] [--temp 0.8] [--max-tokens 600] [--thoughts]

Without a model: nano. Every answer that ended by itself must be valid. `--thoughts` compares the greedy thought before
each answer with that of the same question without a schema; they must be the same. Then come schemas that nobody can
obey, each of which must be refused in one line.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jsonschema

from dsr.models import library
from dsr.models.model import Model
from runtime.base.errors import UsageError
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.grammar import Grammar
from runtime.engine.sequence import Request
from runtime.llama import LlamaBackend, OpenOptions

Schema = dict[str, Any]
Maker = Callable[[random.Random], Schema]
WORDS = ("name", "age", "city", "price", "tags", "size", "colour", "id", "größe", "a b", 'q"t', "x/y", "born", "note")
SLOTS = 8


def names(r: random.Random, least: int = 1, most: int = 5) -> list[str]:
    return r.sample(WORDS, r.randint(least, most))


def plain(r: random.Random) -> Schema:
    return r.choice([
        {"type": "string", "maxLength": r.randint(3, 30)},
        {"type": "integer", "minimum": 0, "maximum": 10 ** r.randint(1, 6)},
        {"type": "boolean"}, {"type": "null"}, {"enum": ["red", "green", 7, None]}, {"const": r.choice(WORDS)},
        number(r),
    ])  # fmt: skip


def record(r: random.Random, value: Maker = plain, *, closed: bool = True, optional: bool = False) -> Schema:
    keys = names(r)
    required = [key for key in keys if not optional or r.random() < 0.5]
    made: Schema = {"type": "object", "properties": {key: value(r) for key in keys}, "required": required}
    return {**made, "additionalProperties": False} if closed else made


def number(r: random.Random) -> Schema:
    low = r.randint(-1000, 1000)
    high = low + r.randint(1, 500)
    return r.choice([
        {"type": "integer", "minimum": low, "maximum": high},
        {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": high + 1},
        {"type": "number", "minimum": low / 8, "maximum": high / 8},
        {"type": "number", "exclusiveMinimum": low, "maximum": high},
        {"type": "integer", "multipleOf": r.choice([2, 5, 25]), "minimum": 0, "maximum": 1000},
    ])  # fmt: skip


def nested(r: random.Random, depth: int = 3) -> Schema:
    if depth == 0:
        return plain(r)
    inside: Maker = lambda r: nested(r, depth - 1) if r.random() < 0.5 else plain(r)  # noqa: E731
    if r.random() < 0.3:
        return {"type": "array", "items": inside(r), "minItems": 1, "maxItems": 3}
    return record(r, inside)


def pattern(r: random.Random) -> Schema:
    return {"type": "string", "pattern": r.choice([
        "^[A-Z]{2}-[0-9]{4}$", "^(north|south)[a-z]{0,5}$", r"^\d{3}\.\d{2}$", "^[a-f0-9]{8}$",
        r"^\w+@[a-z]+\.(com|org)$",
        "^(?:[01][0-9]|2[0-3]):[0-5][0-9]$", "^x*y{2,3}z?$", "b[aeiou]d", "^[^\\s]{1,12}$",
    ])}  # fmt: skip


def formatted(r: random.Random) -> Schema:
    known = ("date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "hostname", "uri")
    return {"type": "string", "format": r.choice(known)}


def recursive(r: random.Random) -> Schema:
    node = {
        "type": "object",
        "properties": {
            "value": plain(r),
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": r.randint(1, 3)},
        },
        "required": ["value"],
        "additionalProperties": False,
    }
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def references(r: random.Random) -> Schema:
    kinds = names(r, 2, 4)
    reference: Maker = lambda r: {"$ref": f"#/$defs/{pointer(r.choice(kinds))}"}  # noqa: E731
    return {**record(r, reference), "$defs": {kind: plain(r) for kind in kinds}}


def pointer(name: str) -> str:
    """A name as a part of a reference: a JSON pointer in a URI."""
    return quote(name.replace("~", "~0").replace("/", "~1"))


def discriminated(r: random.Random) -> Schema:
    kinds = names(r, 2, 3)
    variants = []
    for kind in kinds:
        made = record(r)
        made["properties"] = {"kind": {"const": kind}, **made["properties"]}
        variants.append({**made, "required": ["kind", *made["required"]]})
    return {r.choice(["anyOf", "oneOf"]): variants}


def merged(r: random.Random) -> Schema:
    other = {"type": "object", "properties": {"also": number(r)}, "required": ["also"]}
    return {"allOf": [record(r, closed=False), other]}


def additional(r: random.Random) -> Schema:
    bounds = r.random() < 0.5  # llguidance knows them only where every listed property is required
    made = record(r, optional=not bounds)
    made["additionalProperties"] = r.choice([{"type": "integer", "minimum": 0, "maximum": 99}, {"type": "boolean"}])
    return {**made, "minProperties": len(made["required"]), "maxProperties": 8} if bounds else made


def enumeration(r: random.Random) -> Schema:
    return {"enum": r.sample([*WORDS, 1, 2.5, True, None, [1, 2], {"a": 1}], 4)}


def constant(r: random.Random) -> Schema:
    return {"const": r.choice([*WORDS, -3, 0.25, False, None, [], {"k": [1]}])}


def alternatives(r: random.Random) -> Schema:
    return {"anyOf": [plain(r), plain(r), {"type": "array", "items": plain(r), "maxItems": 3}]}


def text(r: random.Random) -> Schema:
    least = r.randint(0, 20)
    return {"type": "string", "minLength": least, "maxLength": least + 9}


def long_array(r: random.Random) -> Schema:
    least = r.randint(20, 60)
    return {"type": "array", "items": number(r), "minItems": least, "maxItems": least + 5}


def several_types(r: random.Random) -> Schema:
    return {"type": r.sample(["integer", "boolean", "null"], 2)}


def items_in_order(r: random.Random) -> Schema:
    items = [plain(r) for _ in range(r.randint(1, 6))]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


MAKERS: dict[str, Maker] = {
    "flat objects": record,
    "optional properties": lambda r: record(r, optional=True),
    "open objects": lambda r: record(r, closed=False, optional=True),
    "nested": nested,
    "enums": lambda r: record(r, enumeration),
    "constants": lambda r: record(r, constant),
    "anyOf": lambda r: record(r, alternatives),
    "alternatives with a kind": discriminated,
    "allOf": merged,
    "references": references,
    "recursive references": recursive,
    "numbers with bounds": lambda r: record(r, number),
    "patterns": lambda r: record(r, pattern),
    "lengths of strings": lambda r: record(r, text),
    "formats": lambda r: record(r, formatted),
    "long arrays": long_array,
    "tuples": items_in_order,
    "lists of types": lambda r: record(r, several_types),
    "additional properties": additional,
    "values alone": plain,
}

# Each must be refused with one line.
REFUSED: tuple[Any, ...] = (
    {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, {"not": {"type": "string"}},
    {"if": {"type": "string"}, "then": {"minLength": 2}}, {"type": "array", "contains": {"const": 1}},
    {"type": "object", "propertyNames": {"pattern": "^a"}}, {"dependentRequired": {"a": ["b"]}},
    {"type": "foo"}, {"type": "string", "pattern": "(("}, {"type": "string", "pattern": "(?=a)b"},
    {"$ref": "#/nowhere"}, {"$ref": "http://example.org/schema"}, {"$ref": "#"}, {"enum": []},
    {"type": "integer", "minimum": 5, "maximum": 3}, {"type": "string", "format": "colour"},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]}, [], False, "text", 5, {"properties": 5}, {"items": "x"},
    {"required": "a"}, {"type": "string", "maxLength": -1}, {"enum": "a"}, {"$ref": 5}, 
    {"pattern": 5, "type": "string"},
)  # fmt: skip


def checker() -> jsonschema.FormatChecker:
    """The formats that `jsonschema` knows without other packages, and times."""
    known = jsonschema.FormatChecker()

    def is_time(value: object, begin: str = "2000-01-01T") -> bool:
        if isinstance(value, str):
            datetime.fromisoformat(begin + value.upper().replace(":60", ":59"))
        return True

    known.checks("time", ValueError)(is_time)
    known.checks("date-time", ValueError)(lambda value: is_time(value, ""))
    return known


def made(count: int, seed: int) -> list[tuple[str, Schema]]:
    r = random.Random(seed)
    return [(kind, maker(r)) for kind, maker in MAKERS.items() for _ in range(count)]


class Asker:
    """One open model that answers questions in a form."""

    def __init__(self, model: Model, params: SamplingParams) -> None:
        self.format = model.chat_format()
        markers = self.format.markers
        self.backend = LlamaBackend(
            model.path, OpenOptions(context=16384, slots=SLOTS, threads=1, visible=markers.texts if markers else ())
        )
        self.engine = Engine(self.backend)
        self.params = params

    def request(self, question: str, grammar: Grammar | None, sample: int = 0) -> Request:
        prompt = self.format.prompt([Message("user", question)]).tokenized(self.backend.tokenize)
        return Request(prompt, self.params, self.format.markers, sample, grammar=grammar)

    def answers(self, schemas: list[tuple[str, Schema]]) -> dict[int, Completion]:
        """By the place of the schema in the list; a schema that is refused has none."""
        r = random.Random(7)
        requests = []
        for number, (kind, schema) in enumerate(schemas):
            question = f"Give an example for {''.join(r.choices(string.ascii_lowercase, k=5))}, as JSON."
            try:
                grammar = Grammar("json_schema", json.dumps(schema))
                self.backend.constraint(grammar)
            except UsageError as error:
                print(f"REFUSED {kind}: {error.message}\n  {json.dumps(schema)}")
                continue
            requests.append(self.request(question, grammar, number))
        return {each.sample: each for each in self.engine.generate(requests)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["nano"])
    parser.add_argument("--count", type=int, default=16, help="schemas of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--temp", type=float, default=0.8)
    parser.add_argument("--max-tokens", type=int, default=600)
    parser.add_argument("--thoughts", action="store_true")
    options = parser.parse_args()
    schemas = made(options.count, options.seed)
    failed = sum(not report(name, schemas, options) for name in options.models)
    sys.exit(failed)


def report(name: str, schemas: list[tuple[str, Schema]], options: argparse.Namespace) -> bool:
    """Ask one model everything; True if all is as it must be."""
    asker = Asker(library.find(name), SamplingParams(temperature=options.temp, max_tokens=options.max_tokens, seed=1))
    started = time.perf_counter()
    completions = asker.answers(schemas)
    seconds = time.perf_counter() - started
    table: dict[str, Counter[str]] = {kind: Counter() for kind in MAKERS}
    bad = 0
    for number, completion in completions.items():
        kind, schema = schemas[number]
        why = complaint(schema, completion)
        table[kind]["cut" if completion.finish_reason != "stop" else "invalid" if why else "valid"] += 1
        if why:
            bad += 1
            print(f"INVALID {kind}: {why}\n  {json.dumps(schema)}\n  {completion.answer!r}")
    print(f"\n{name}: {len(schemas)} schemas in {seconds:.0f} s")
    for kind, counts in table.items():
        print(f"  {kind:26} {counts['valid']:4} valid {counts['cut']:4} cut {counts['invalid']:4} invalid")
    total = sum(table.values(), Counter())
    print(f"  {'all':26} {total['valid']:4} valid {total['cut']:4} cut {total['invalid']:4} invalid")
    changed = thoughts_that_changed(asker, schemas) if options.thoughts else 0
    taken = sum(not is_refused(asker.backend, wish) for wish in REFUSED)
    print(f"  {len(REFUSED) - taken} of {len(REFUSED)} impossible schemas refused in one line")
    asker.backend.close()
    return len(completions) == len(schemas) and not (bad or changed or taken)


def complaint(schema: Schema, completion: Completion) -> str:
    """Why a finished answer is not valid; "" if it is."""
    if completion.finish_reason != "stop":
        return ""
    try:
        jsonschema.Draft202012Validator(schema, format_checker=checker()).validate(json.loads(completion.answer))
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).splitlines()[0]
    return ""


def thoughts_that_changed(asker: Asker, schemas: list[tuple[str, Schema]]) -> int:
    """Greedy, one at a time, so that the batches are the same."""
    changed = compared = 0
    params = replace(asker.params, temperature=0)
    for number, (_, schema) in enumerate(schemas):
        if is_refused(asker.backend, schema, expected=False):
            continue
        question = f"What is {number + 100} + {2 * number + 31}?"
        grammar = Grammar("json_schema", json.dumps(schema))
        free, held = (
            asker.engine.generate([replace(asker.request(question, each), params=params)])[0]
            for each in (None, grammar)
        )
        compared += bool(free.thinking)
        changed += free.thinking != held.thinking
    print(f"  {compared} thoughts compared with those without a schema: {changed} differ")
    return changed


def is_refused(backend: LlamaBackend, wish: Any, *, expected: bool = True) -> bool:
    try:
        backend.constraint(Grammar("json_schema", json.dumps(wish)))
    except UsageError as error:
        if "\n" not in error.message and len(error.message) < 400:
            return True
        print(f"NOT ONE LINE {json.dumps(wish)}: {error.message}")
        return False
    if expected:
        print(f"NOT REFUSED {json.dumps(wish)}")
    return False


if __name__ == "__main__":
    main()
