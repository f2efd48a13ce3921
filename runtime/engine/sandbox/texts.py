"""Operations of chat templates on text whose native cost or result can be far larger than their operands."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter

from runtime.engine.sandbox.meter import ITEM, STEP, LimitExceeded, Meter, meter_of

_MAX_WIDTH = 1000  # of a field, in characters or in digits


# Searches from the right: CPython's take the product of both lengths. The text is searched backwards instead.


def rfind(text: str, part: str, start: int | None = None, end: int | None = None) -> int:
    first, last, _ = slice(start, end).indices(len(text))
    if first > last or (start is not None and start > len(text)):
        return -1
    found = text[first:last][::-1].find(part[::-1])
    return -1 if found < 0 else last - found - len(part)


def rpartition(text: str, part: str) -> tuple[str, str, str]:
    after, found, before = text[::-1].partition(part[::-1])
    return before[::-1], found[::-1], after[::-1]


def rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    if sep is None:
        return text.rsplit(None, maxsplit)
    return [piece[::-1] for piece in reversed(text[::-1].split(sep[::-1], maxsplit))]


def replace(text: str, old: str, new: str, count: int | None = None) -> str:
    return text.replace(old, new, -1 if count is None else count)


def word_count(text: str) -> int:
    return sum(1 for _ in re.finditer(r"\w+", text))


# Operators.


def add(context: Context, left: Any, right: Any) -> Any:
    """`left + right`. A variable that is missing or null adds nothing to a text: llama.cpp's rule, which templates
    rely on (common/jinja/runtime.cpp, "treating null/undefined as empty string").
    """
    meter = meter_of(context)
    if isinstance(left, str) and (right is None or isinstance(right, Undefined)):
        return left
    if isinstance(right, str) and (left is None or isinstance(left, Undefined)):
        return right
    if isinstance(left, (str, list, tuple)):
        one, other = meter.size(left), meter.size(right)
        meter.room_for(one.characters + other.characters, one.items + other.items)
    return left + right


def times(context: Context, left: Any, right: Any) -> Any:
    meter = meter_of(context)
    for sized, number in ((left, right), (right, left)):
        if isinstance(sized, (str, list, tuple)) and isinstance(number, int):
            size = meter.size(sized)
            meter.room_for(size.characters * number, 0 if isinstance(sized, str) else size.items * number)
            meter.spend(max(0, number) * (len(sized) if isinstance(sized, str) else ITEM * len(sized)))
    return left * right


def power(context: Context, left: Any, right: Any) -> Any:
    if not (isinstance(right, (int, float)) and abs(right) <= 64):
        raise LimitExceeded("it computes with huge numbers")
    return left**right


def percent(context: Context, left: Any, right: Any) -> Any:
    return format_percent(meter_of(context), left, right) if isinstance(left, str) else left % right


# Formatting. A width or a precision makes any size, so none is larger than `_MAX_WIDTH`.

_SPECIFICATION = re.compile(
    r"%(?:\((?P<key>[^()]{0,200})\))?[#0\- +]{0,8}\d{0,3}(?:\.\d{0,3})?[hlL]?(?P<kind>[diouxXeEfFgGcrsa%])"
)


def format_percent(meter: Meter, text: str, values: Any) -> str:
    """`text % values`. Raises SecurityError for a specification that is unusual, LimitExceeded for a large result."""
    length, next_value = len(text), 0
    at = text.find("%")
    while at >= 0:
        meter.spend(STEP)
        found = _SPECIFICATION.match(text, at)
        if found is None:
            raise SecurityError("it formats with % and an unusual field")
        if found["kind"] != "%":
            value = values
            if isinstance(values, dict) and found["key"] is not None:
                value = values.get(found["key"])
            elif isinstance(values, tuple):
                value = values[next_value] if next_value < len(values) else None
                next_value += 1
            length += _MAX_WIDTH + _printed_at_most(meter, value, as_text=found["kind"] == "s")
            meter.room_for(length)
        at = text.find("%", found.end())
    meter.spend(2 * length)
    return str(text % values)


def _printed_at_most(meter: Meter, value: Any, *, as_text: bool) -> int:
    """Characters; `repr` writes some characters as ten."""
    size = meter.size(value)
    plain = as_text and isinstance(value, str)
    return size.characters if plain else 10 * size.characters + 32 * size.items


def format_filter(context: Context, text: str, /, *values: Any, **named: Any) -> str:
    if values and named:
        raise TypeError("positional and named values cannot be formatted at the same time")
    return format_percent(meter_of(context), text, named or values)


class _Formatter(SandboxedFormatter):
    """`str.format`, in which attributes and items of fields go through the sandbox, and each field is paid for."""

    def __init__(self, environment: SandboxedEnvironment, meter: Meter) -> None:
        super().__init__(environment)
        self._meter = meter
        self._length = 0

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Any) -> tuple[Any, str]:
        self._meter.spend(STEP + len(field_name))
        return super().get_field(field_name, args, kwargs)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is not None:
            self._meter.room_for(_printed_at_most(self._meter, value, as_text=False))
            self._meter.spend(10 * self._meter.size(value).walk)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        if len(format_spec) > 40 or re.search(r"\d{4}", format_spec):
            raise LimitExceeded(f"it formats a field wider than {_MAX_WIDTH} characters")
        text = self._meter.text(value) if format_spec == "" else value
        formatted = str(super().format_field(text, format_spec))
        self._length += len(formatted)
        self._meter.room_for(self._length)
        self._meter.spend(len(formatted))
        return formatted


def format_fields(context: Context, text: str, /, *values: Any, **named: Any) -> str:
    environment = context.environment
    assert isinstance(environment, SandboxedEnvironment)
    return _Formatter(environment, meter_of(context)).vformat(text, values, named)


# Texts of several parts.


def join(meter: Meter, items: Any, glue: Any) -> str:
    """Items that are no text are printed."""
    glue, length = meter.text(glue), 0
    parts = []
    for item in meter.items(items):
        parts.append(meter.text(item))
        length += len(parts[-1]) + len(glue)
        meter.spend(ITEM + len(parts[-1]) + len(glue))
        meter.room_for(length - len(glue))
    return str(glue.join(parts))


def join_filter(context: Context, items: Any, d: Any = "", attribute: str | int | None = None) -> str:
    values = meter_of(context).items(items)
    if attribute is not None:
        values = [context.environment.getitem(item, attribute) for item in values]
    return join(meter_of(context), values, d)


def indent(context: Context, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    meter = meter_of(context)
    margin = width if isinstance(width, str) else " " * min(int(width), 256)
    lines = text.splitlines(keepends=True)
    meter.room_for(len(text) + len(lines) * len(margin))
    meter.spend(len(lines) * (STEP + len(margin)))
    return "".join(
        margin + line if (first or number) and (blank or line.strip()) else line for number, line in enumerate(lines)
    )


def to_json(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as chat templates expect it: not escaped for HTML, unlike jinja's own filter."""
    meter = meter_of(context)
    if separators is not None and sum(map(len, separators)) > 100:
        raise LimitExceeded("it separates JSON with more than 100 characters")
    size = meter.size(value)
    meter.spend((32 if sort_keys else 1) * size.walk + 12 * size.characters)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        indent=None if indent is None else min(int(indent), 16),
        separators=separators,
        sort_keys=sort_keys,
    )
    return str(context.environment.concat(encoder.iterencode(value)))
