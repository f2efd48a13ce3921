"""The body of a request: read within limits, checked, as JSON or as a pydantic model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError
from starlette.requests import Request

from dsr.serve.http.errors import Refused
from dsr.serve.http.limits import Limits


class Body(BaseModel):
    """Unknown fields are kept in `model_extra`, and told to the client. Numbers and texts are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)


class _FirstFault(FailFast):
    """`FailFast` that unions can hold."""

    __hash__ = object.__hash__


Each = TypeVar("Each")
# A list whose check ends at its first fault: a million faults would be written down, and take a minute.
Many = Annotated[list[Each], _FirstFault()]
Schema = TypeVar("Schema", bound=Body)
# Possessive, and without need of a closing quote: so it takes one pass over any text.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The body as a JSON object. Raises Refused: 413 for one that is too long, 400 for one that is no object."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limits.body:
        raise Refused(413, f"the request has {told} bytes, and at most {limits.body} are read")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limits.body:
            raise Refused(413, f"the request has more than {limits.body} bytes")
    _check_shape(data, limits)
    try:
        text = data.decode("utf-8-sig")  # RFC 8259, 8.1: no other encoding
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except UnicodeEncodeError:
        raise Refused(400, "the request has half of a surrogate pair, which is no text") from None
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the request is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(400, "the request must be a JSON object")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def parsed(schema: type[Schema], value: dict[str, Any]) -> tuple[Schema, tuple[str, ...]]:
    """`value` as a `schema`, and the fields that it does not know, also those of objects in it ("options.x").

    Raises Refused with the place of the first fault.
    """
    try:
        found = schema.model_validate(value)
    except ValidationError as error:
        place, message = _fault(value, error)
        raise Refused(400, f"{place}: {message}" if place else message, place=place) from None
    return found, tuple(sorted(_unknown(found)))


def _fault(value: Any, error: ValidationError) -> tuple[str, str]:
    """The place of the first field's fault, and a sentence. Where a field may have several types, each has its faults:
    the deepest is that of the type which the client meant.
    """
    faults = error.errors(include_url=False, include_input=False)
    of_first = [each for each in faults if each["loc"][:1] == faults[0]["loc"][:1]]
    places = [_place(value, each["loc"], missing=each["type"] == "missing") for each in of_first]
    deepest = max(range(len(places)), key=lambda number: len(places[number]))
    return ".".join(places[deepest]), of_first[deepest]["msg"]


def _place(value: Any, steps: tuple[int | str, ...], *, missing: bool) -> list[str]:
    """The path to a fault. pydantic adds the names of the types that a field may have, which no client knows."""
    path: list[str] = []
    for number, step in enumerate(steps):
        last = missing and number == len(steps) - 1
        if isinstance(value, dict) and (step in value or last):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
        else:
            continue
        path.append(str(step))
    return path


def _unknown(body: BaseModel) -> Iterator[str]:
    yield from body.model_extra or ()
    for name in type(body).model_fields:
        inner = getattr(body, name)
        if isinstance(inner, BaseModel):
            yield from (f"{name}.{each}" for each in _unknown(inner))


def _check_shape(data: bytearray, limits: Limits) -> None:
    """Raises Refused for JSON whose parsing would take too long or too deep a stack. Texts may hold any bracket."""
    plain = _STRING.sub(b"", data)
    if (values := plain.count(b",") + 1) > limits.values:
        raise Refused(400, f"the request's JSON has {values} values, and may have {limits.values}")
    brackets = plain.translate(None, _NO_BRACKETS)
    containers = brackets.count(b"[") + brackets.count(b"{")
    if containers > limits.containers:
        raise Refused(400, f"the request's JSON has {containers} objects and lists, and may have {limits.containers}")
    if containers <= limits.depth:
        return
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > limits.depth:
            raise Refused(400, f"the request's JSON is nested deeper than {limits.depth} levels")
