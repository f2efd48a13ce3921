"""A measurement: the figures of one model file in one test, with the conditions and the command that repeats it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import PurePath
from types import UnionType
from typing import Any, Literal, Self, TypeVar, get_args

Kind = Literal["speed", "quality", "reason", "experts"]
Parameter = str | int | float | bool | None

# The names of predicted figures begin with this.
PREDICTED = "predicted_"


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean of `count` measurements. `error` is its standard error, None where there was only one."""

    mean: float
    error: float | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machine and the versions of a measurement. `load`: share of the processor that other work took, 0 to 1.

    `disturbed` says what made the figures doubtful, or "". Measurements are comparable if all other fields are equal.
    """

    processor: str
    cores: int
    memory: int
    dsr: str
    engine: str
    load: float
    disturbed: str = ""

    def differences(self, other: Self) -> tuple[str, ...]:
        """Returns the names of the fields that make two measurements incomparable."""
        names = [each.name for each in fields(self) if each.name not in ("load", "disturbed")]
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


def short_name(model: str) -> str:
    """Returns a reference unchanged, and a path without its folders and ending."""
    if not model.casefold().endswith(".gguf"):
        return model
    return PurePath(model.replace("\\", "/")).name[: -len(".gguf")] or model


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of one file in one test.

    `digest`: of the file's header. `size`: bytes. `test`: "pp512", "vote n=8", "own 8 of 16". `parameters`: options
    that can differ. `figures`: by name. `at`: seconds since 1970. `command` repeats the measurement; "" means the
    bench of its kind.
    """

    kind: Kind
    model: str
    digest: str
    size: int
    test: str
    parameters: Mapping[str, Parameter]
    figures: Mapping[str, Figure]
    conditions: Conditions
    at: float
    command: str = ""

    def is_of(self, model: str) -> bool:
        """Returns whether `model` names this model: its reference, its file, or the first digits of its digest."""
        file = PurePath(self.model).name
        names = (self.model, file, short_name(self.model))
        return model in names or PurePath(model).name == file or (len(model) >= 6 and self.digest.startswith(model))

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Measurement:
        """Returns the measurement of a `json` object. Raises ValueError."""
        try:
            if body["kind"] not in get_args(Kind):
                raise ValueError(f"{body['kind']!r} is not a kind of measurement")
            figures = {str(name): _typed(Figure(**figure)) for name, figure in body["figures"].items()}
            conditions = _typed(Conditions(**body["conditions"]))
            made = _typed(cls(**{**body, "figures": figures, "conditions": conditions}))
            if not all(isinstance(value, Parameter) for value in made.parameters.values()):
                raise ValueError("a parameter is neither a number nor a text")
            datetime.fromtimestamp(made.at)
            return made
        except (KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
            raise ValueError(f"not a measurement: {error}") from None


_TYPES: Mapping[str, type | UnionType] = {
    "str": str,
    "Kind": str,
    "int": int,
    "float": int | float,
    "float | None": int | float | None,
    "Mapping[str, Parameter]": dict,
}
_Record = TypeVar("_Record", Figure, Conditions, Measurement)


def _typed(record: _Record) -> _Record:
    """Returns the record, or raises ValueError if a field has another type, or is not finite."""
    for each in fields(record):
        value, wanted = getattr(record, each.name), _TYPES.get(str(each.type))
        wrong = wanted is not None and (not isinstance(value, wanted) or isinstance(value, bool))
        if wrong or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{each.name} cannot be {value!r}")
    return record
