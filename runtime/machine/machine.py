"""What there is to run a model on: devices with their speeds, the links to other machines, the disk. Pure data.

A machine is measured once (`runtime.machine.measure`), kept, and can be written as JSON to plan for another machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from runtime.base.errors import UsageError
from runtime.base.types import ByteCount
from runtime.gguf import types

SCHEMA = "dsr.machine/1"
_LARGEST = 1e300  # what a number in a file may be: above are infinity and whole numbers that no float can hold
_SPARED = 0.1  # of what is free, what stays free for everything else that runs
_SPARED_OF_A_GPU = 1 << 30  # at most, where less else runs: llama.cpp leaves as much
FEW, MANY = 2, 8  # tokens computed together, for `Speed.two` and `Speed.many`


def usable(free: float, kind: str = "cpu") -> ByteCount:
    """Of the bytes that are `free` on a device, those that a model may take: what `dsr plan` counts with and `dsr chat`
    keeps to."""
    spared = free * _SPARED
    return ByteCount(free - (min(spared, _SPARED_OF_A_GPU) if kind == "gpu" else spared))


def free_for(taken: int) -> ByteCount:
    """How much must be free on a CPU for a model to take so many bytes."""
    return ByteCount(math.ceil(taken / (1 - _SPARED)))


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a device multiplies weights with activations, in bytes of weights per second.

    `one` by ggml type ("Q4_K"), for one token; `two` and `many` for two and eight tokens together, where the same
    weights serve all. `bandwidth` is what its memory gives, in bytes per second. `attention` by the type of the KV
    cache ("F16"): multiply-adds per second of queries with keys and of weights with values.

    Beside that a layer costs `per_layer` seconds a step, and each token of the step `per_row` in each layer and
    `per_expert_layer` in one with routed experts: norms, activation functions, the handing over between threads.

    `threads` were used for measuring; `assumed` figures come from tables because the device could not be measured.
    """

    bandwidth: float
    one: Mapping[str, float]
    many: Mapping[str, float]
    per_layer: float = 0.0
    two: Mapping[str, float] = field(default_factory=dict)
    attention: Mapping[str, float] = field(default_factory=dict)
    per_expert_layer: float = 0.0
    per_row: float = 0.0
    threads: int = 0
    assumed: bool = False

    def times(self, factor: float) -> Speed:
        """So many times as fast in everything."""

        def faster(speeds: Mapping[str, float]) -> dict[str, float]:
            return {name: each * factor for name, each in speeds.items()}

        return replace(
            self,
            bandwidth=self.bandwidth * factor,
            one=faster(self.one),
            two=faster(self.two),
            many=faster(self.many),
            attention=faster(self.attention),
            per_layer=self.per_layer / factor,
            per_expert_layer=self.per_expert_layer / factor,
            per_row=self.per_row / factor,
        )

    def __post_init__(self) -> None:
        _above_zero("bandwidth", self.bandwidth)
        for name in ("one", "two", "many", "attention"):
            for type_name, value in getattr(self, name).items():
                if type_name not in types.BY_NAME:
                    raise UsageError(f"{name}: {type_name!r} is no type of a tensor")
                _above_zero(f"{name}.{type_name}", value)
        for name in ("per_layer", "per_expert_layer", "per_row", "threads"):
            _not_negative(name, getattr(self, name))

    def weights_seconds(self, weights: Mapping[str, int], columns: float = 1) -> float:
        """The time to multiply so many bytes of weights by type with `columns` tokens together.

        Linear between the measured points 1, 2 and 8, and beyond them with the slope of the last two.
        """
        return sum(size * self._per_byte(name, columns) for name, size in weights.items())

    def experts_seconds(self, weights: Mapping[str, int], columns: float = 1) -> float:
        """The same for routed experts that meet `columns` tokens each: one after another, in ggml's kernel."""
        return self.weights_seconds(weights) * max(1.0, columns)

    def attention_seconds(self, multiply_adds: float, kv_type: str = "f16") -> float:
        """The time for so many multiply-adds over the KV cache; by its memory's bandwidth where none was measured."""
        kind = types.kv_type(kv_type)
        per_second = self.attention.get(kind.name) or min(self.attention.values(), default=0.0)
        return multiply_adds / (per_second or self.bandwidth * kind.block / kind.width)

    def _per_byte(self, name: str, columns: float) -> float:
        one = 1 / (self.one.get(name) or self.bandwidth)
        many = 1 / (self.many.get(name) or min(self.many.values(), default=self.bandwidth))
        many = max(one, many)
        two = 1 / self.two[name] if name in self.two else one + (many - one) * (FEW - 1) / (MANY - 1)
        two = min(max(one, two), many)
        if columns <= FEW:
            return one + (two - one) * max(0.0, columns - 1)
        return two + (many - two) * (columns - FEW) / (MANY - FEW)


@dataclass(frozen=True, slots=True)
class Device:
    """`node` is "" for this machine, else its "host:port". Memory in bytes, free as this process may use it.

    A GPU that does not say how much memory it has counts with none: nothing is put there.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    memory_free: int
    memory_total: int
    speed: Speed
    node: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "gpu"):
            raise UsageError(f"{self.name}: a device is a cpu or a gpu, not {self.kind!r}")
        if not 0 <= self.memory_free <= self.memory_total:
            raise UsageError(
                f"{self.name}: {self.memory_free} bytes of {self.memory_total} cannot be free",
                hint="memory_free is at most memory_total, both in bytes",
            )


@dataclass(frozen=True, slots=True)
class Link:
    """The way to a node: seconds for a message there and back, bytes per second. Also PCIe to a GPU, by its name."""

    to: str
    round_trip: float
    bandwidth: float

    def __post_init__(self) -> None:
        _not_negative("round_trip", self.round_trip)
        _above_zero("bandwidth", self.bandwidth)


@dataclass(frozen=True, slots=True)
class Machine:
    """`devices` has this machine's CPU first. `disk_read` in bytes per second, 0 where it is not known.

    Drawing one token of one sample takes `per_draw` seconds and `per_entry` for each entry of the vocabulary; this is
    done here, whatever computes the layers. `probe` names the measuring that the figures of the CPU come from.
    """

    name: str
    devices: tuple[Device, ...]
    links: tuple[Link, ...] = ()
    disk_read: float = 0.0
    numa_nodes: int = 1
    per_draw: float = 0.0
    per_entry: float = 0.0
    probe: str = ""

    def __post_init__(self) -> None:
        if not self.devices or self.devices[0].kind != "cpu" or self.devices[0].node:
            raise UsageError("a machine has a CPU of its own, named first")
        places = [(device.node, device.name) for device in self.devices]
        for place in places:
            if places.count(place) > 1:
                raise UsageError(f"two devices are named {place[1]}")
        for name in ("disk_read", "per_draw", "per_entry"):
            _not_negative(name, getattr(self, name))
        if self.numa_nodes < 1:
            raise UsageError(f"numa_nodes is at least 1, not {self.numa_nodes}")

    @property
    def memory_free(self) -> ByteCount:
        return ByteCount(sum(device.memory_free for device in self.devices))

    def spared(self) -> Machine:
        """With no more free memory than a model may take of it."""
        devices = (replace(each, memory_free=usable(each.memory_free, each.kind)) for each in self.devices)
        return replace(self, devices=tuple(devices))

    def corrected(self, factor: float) -> Machine:
        """With a CPU of its own that is so many times as fast as it was measured."""
        home, *others = self.devices
        return replace(
            self,
            devices=(replace(home, speed=home.speed.times(factor)), *others),
            per_draw=self.per_draw / factor,
            per_entry=self.per_entry / factor,
        )

    def draw_seconds(self, vocab_size: int, samples: int = 1) -> float:
        """The time to draw one token of each sample."""
        return samples * (self.per_draw + self.per_entry * vocab_size)

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


def from_json(text: str, name: str) -> Machine:
    """A machine as `to_json` has it, or the whole of what `dsr doctor --json` writes.

    Raises UsageError that names the field: a file written by hand is read strictly, so that a misspelt field is not
    silently a default.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: is no JSON: {error}") from error
    if isinstance(body, dict) and body.get("schema") == "dsr.doctor/1":
        body = body.get("site")
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        raise UsageError(
            f"{name}: is no machine that dsr knows (schema {SCHEMA})",
            hint="dsr doctor --json writes one of the machine it runs on",
        )
    try:
        return _machine({key: value for key, value in body.items() if key != "schema"})
    except UsageError as error:
        raise UsageError(f"{name}: {error}", hint=error.hint) from error


def _machine(body: dict[str, Any]) -> Machine:
    devices = []
    for place, each in _each(body, "devices"):
        with_speed = {**each, "speed": _record(Speed, each.get("speed"), f"{place}.speed")}
        devices.append(_record(Device, with_speed, place))
    links = tuple(_record(Link, each, place) for place, each in _each(body, "links"))
    return _record(Machine, {**body, "devices": tuple(devices), "links": links}, "")


def _each(body: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    listed = body.get(key, [])
    if not isinstance(listed, list):
        raise UsageError(f"{key}: is no list")
    for number, each in enumerate(listed):
        if not isinstance(each, dict):
            raise UsageError(f"{key}[{number}]: is no object")
    return [(f"{key}[{number}]", each) for number, each in enumerate(listed)]


_Record = TypeVar("_Record", Speed, Device, Link, Machine)


def _record(kind: type[_Record], body: object, place: str) -> _Record:
    """A dataclass from a JSON object with exactly its fields; those with a default may be left out."""
    if not isinstance(body, dict):
        raise UsageError(f"{place}: is missing" if body is None else f"{place}: is no object")
    known = {each.name: each for each in fields(kind)}
    before = f"{place}." if place else ""
    for key in body:
        if key not in known:
            raise UsageError(f"{before}{key}: is no field", hint=f"there are {', '.join(known)}")
    for key, each in known.items():
        if key in body:
            _check(f"{before}{key}", body[key], str(each.type))
        elif each.default is MISSING and each.default_factory is MISSING:
            raise UsageError(f"{before}{key}: is missing")
    try:
        return kind(**body)
    except UsageError as error:
        raise UsageError(f"{before}{error}", hint=error.hint) from error


def _check(place: str, value: object, annotation: str) -> None:
    """Whether a value read from JSON is what a field's annotation says; true and false are no numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    fits, what = {
        "float": (number, "number"),
        "int": (number and isinstance(value, int), "whole number"),
        "str": (isinstance(value, str), "text"),
        "bool": (isinstance(value, bool), "true or false"),
        "Mapping[str, float]": (isinstance(value, dict), "object"),
    }.get(annotation, (True, ""))
    if not fits:
        raise UsageError(f"{place}: {value!r} is no {what}")
    if isinstance(value, dict) and annotation.startswith("Mapping"):
        for key, each in value.items():
            _check(f"{place}.{key}", each, "float")


def _above_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name}: {value} is not above zero")


def _not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name}: {value} is no number from zero")
