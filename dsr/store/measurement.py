"""What benches measured: a row for each model file and test, with the conditions it was measured under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, Literal, Self, get_args

Kind = Literal["speed", "quality", "reason", "experts"]
Parameter = str | int | float | bool | None

# What the names of figures begin with that were not measured.
PREDICTED = "predicted_"


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean of `count` measurements. `error` is its standard error, None where there was only one."""

    mean: float
    error: float | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where and with what was measured. `load` is the share of the processor that other work took, 0 to 1, and
    `disturbed` says what else made the figures doubtful, "" where nothing was noticed; both may differ between rows
    that are compared, the rest may not."""

    processor: str
    cores: int
    memory: int
    dsr: str
    engine: str
    load: float
    disturbed: str = ""

    def differences(self, other: Self) -> tuple[str, ...]:
        """The names of what is not the same."""
        names = [each.name for each in fields(self) if each.name not in ("load", "disturbed")]
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


def short_name(model: str) -> str:
    """A reference as it is, a path without its folders and its ending."""
    if not model.casefold().endswith(".gguf"):
        return model
    return PurePath(model.replace("\\", "/")).name[: -len(".gguf")] or model


@dataclass(frozen=True, slots=True)
class Measurement:
    """`digest` is that of the file's header, `size` its bytes, `test` the line of the bench ("pp512", "vote n=8",
    "own 8 of 16"), `parameters` all that could have been chosen otherwise, `figures` by name. `at` in seconds since
    1970. `command`: what measures it again, where the bench of its kind would not do."""

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
        """Whether it is of a model that is named as it was measured, by its file, or by the beginning of a digest."""
        file = PurePath(self.model).name
        names = (self.model, file, short_name(self.model))
        return model in names or PurePath(model).name == file or (len(model) >= 6 and self.digest.startswith(model))

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """What `json` gave. Raises ValueError for anything else."""
        try:
            if body["kind"] not in get_args(Kind):
                raise ValueError(f"{body['kind']!r} is no kind of bench")
            figures = {str(name): Figure(**figure) for name, figure in body["figures"].items()}
            conditions = Conditions(**body["conditions"])
            return cls(**{**body, "figures": figures, "conditions": conditions})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no row of a bench: {error}") from None
