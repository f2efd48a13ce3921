"""What stands in a model file, part by part: tensors, metadata, chat template. Rows for people, objects for JSON."""

from __future__ import annotations

from itertools import islice
from typing import Any

from runtime.base.errors import NotFound
from runtime.base.quoted import quoted
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.values import ArrayValue, Value

TENSOR_HEADER = ("name", "type", "shape", "size")
METADATA_HEADER = ("key", "value")
_SHOWN = 6  # of the elements of a list
_LONGEST = 120  # characters of a value on one line


def tensor_rows(card: ModelCard) -> list[tuple[str, str, str, str]]:
    """Each tensor in file order; the first number of a shape is the length of its rows."""
    return [(each.name, each.type, " x ".join(map(str, each.shape)), str(each.size)) for each in card.tensors]


def tensors_json(card: ModelCard) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "type": each.type,
            "shape": list(each.shape),
            "offset": each.offset,
            "bytes": int(each.size),
            "file": str(card.files[each.file]),
        }
        for each in card.tensors
    ]


def metadata_rows(card: ModelCard) -> list[tuple[str, str]]:
    """Each key in file order, a value in one line."""
    return [(quoted(key), _in_line(value)) for key, value in card.metadata.items()]


def metadata_json(card: ModelCard) -> dict[str, Any]:
    """The metadata; of a list its type, its length and its first elements."""
    return {key: _list_json(value) if isinstance(value, ArrayValue) else value for key, value in card.metadata.items()}


def template_of_file(card: ModelCard) -> str:
    """The chat template. Raises NotFound for a file without one."""
    if card.template is None:
        raise NotFound(
            f"{card.path}: there is no chat template in it", hint="give one to dsr chat with --template FILE"
        )
    return card.template


def _in_line(value: Value) -> str:
    if isinstance(value, ArrayValue):
        first = ", ".join(quoted(str(each), 30) for each in _first(value))
        rest = ", ..." if value.count > _SHOWN else ""
        return f"{value.count} {value.type}: {first}{rest}"
    text = str(value).lower() if isinstance(value, bool) else quoted(str(value), _LONGEST)
    return f"{text} ({ByteCount(len(value.encode()))})" if isinstance(value, str) and len(value) > _LONGEST else text


def _list_json(value: ArrayValue) -> dict[str, Any]:
    return {"type": value.type, "count": value.count, "first": _first(value)}


def _first(value: ArrayValue) -> list[Any]:
    if value.type == "str":
        return [raw.decode("utf-8", "replace") for raw in islice(value.raw_strings(), _SHOWN)]
    return list(islice(value.numbers(), _SHOWN))
