"""The body of a request: read within limits, checked, as JSON or as a pydantic model."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from dsr.serve.http.errors import Refused
from dsr.serve.http.limits import Limits


class Body(BaseModel):
    """Unknown fields are kept in `model_extra`, and told to the client. Numbers and texts are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)


Schema = TypeVar("Schema", bound=Body)


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
    if _depth(data, limits.depth) > limits.depth:
        raise Refused(400, f"the request's JSON is nested deeper than {limits.depth} levels")
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the request is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(400, "the request must be a JSON object")
    return value


def parsed(schema: type[Schema], value: dict[str, Any]) -> tuple[Schema, tuple[str, ...]]:
    """`value` as a `schema`, and the fields that it does not know. Raises Refused with the place of the first fault."""
    try:
        found = schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Refused(400, f"{place}: {first['msg']}" if place else first["msg"], place=place) from None
    return found, tuple(sorted(found.model_extra or ()))


def _depth(data: bytes | bytearray, most: int) -> int:
    """How deep the brackets outside of strings nest; counting stops beyond `most`."""
    if data.count(b"[") + data.count(b"{") <= most:
        return 0
    depth = deepest = 0
    inside = escaped = False
    for byte in data:
        if inside:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > most:
                break
        elif byte in b"]}":
            depth -= 1
    return deepest
