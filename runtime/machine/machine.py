"""A machine as a model sees it: devices with their speeds, links to nodes and GPUs, and the disk. Pure data.

`runtime.machine.measure` measures a machine. As JSON, it allows plans for another machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from runtime.base.errors import UsageError
from runtime.base.texts import parse_json
from runtime.base.types import ByteCount
from runtime.gguf import types
from runtime.gguf.kv_types import kv_types
from runtime.gguf.types import GgmlType

SCHEMA = "dsr.machine/1"
_LARGEST = 1e300  # the largest number allowed in a file; larger integers fit no float
_RESERVED = 0.1  # the share of free memory that stays free for other programs
_MOST_RESERVED_ON_GPU = 1 << 30  # the most that stays free on a GPU, as in llama.cpp
_ANY = ByteCount(1 << 60)  # more than any model
FEW, MANY = 2, 8  # tokens computed together, for `Speed.two` and `Speed.many`


def usable(free: float, kind: str = "cpu") -> ByteCount:
    """The bytes that a model may take of those that are `free` on a device. `dsr plan` and `dsr chat` obey it."""
    reserved = free * _RESERVED
    return ByteCount(free - (min(reserved, _MOST_RESERVED_ON_GPU) if kind == "gpu" else reserved))


def free_for(taken: int) -> ByteCount:
    """The bytes that must be free in RAM so that a model may take `taken` of them."""
    return ByteCount(math.ceil(taken / (1 - _RESERVED)))


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a device multiplies weights with activations, in bytes of weights per second.

    `one` is the speed of one token for each ggml type ("Q4_K"); `two` and `many` are those of two and eight tokens that
    share the weights. `further` is that of each further token that chose a routed expert, which the caches hold by
    then. `bandwidth` is that of the memory, in bytes per second. `attention` has multiply-adds per second for each type
    of the KV cache ("F16").

    The rest of a layer (norms, activation functions, synchronization) takes `per_layer` seconds in each step. Each
    token of the step adds `per_row`, and `per_expert_layer` in a layer with routed experts.

    `threads` were used for the measurement. `assumed` speeds come from a table because the device was not measured.
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
    further: Mapping[str, float] = field(default_factory=dict)

    def times(self, factor: float) -> Speed:
        """The same device, `factor` times as fast in everything."""

        def faster(speeds: Mapping[str, float]) -> dict[str, float]:
            return {name: each * factor for name, each in speeds.items()}

        return replace(
            self,
            bandwidth=self.bandwidth * factor,
            one=faster(self.one),
            two=faster(self.two),
            many=faster(self.many),
            attention=faster(self.attention),
            further=faster(self.further),
            per_layer=self.per_layer / factor,
            per_expert_layer=self.per_expert_layer / factor,
            per_row=self.per_row / factor,
        )

    def __post_init__(self) -> None:
        _above_zero("bandwidth", self.bandwidth)
        for name in ("one", "two", "many", "attention", "further"):
            for type_name, value in getattr(self, name).items():
                if type_name not in types.BY_NAME:
                    raise UsageError(f"{name}: {type_name!r} is not a tensor type")
                _above_zero(f"{name}.{type_name}", value)
        for name in ("per_layer", "per_expert_layer", "per_row", "threads"):
            _not_negative(name, getattr(self, name))

    def weights_seconds(self, weights: Mapping[str, int], columns: float = 1) -> float:
        """The time to multiply weights, given in bytes for each type, with `columns` tokens together.

        Interpolated between the measured 1, 2 and 8 tokens, and extrapolated beyond 8.
        """
        return sum(size * self._per_byte(name, columns) for name, size in weights.items())

    def experts_seconds(self, weights: Mapping[str, int], columns: float = 1) -> float:
        """The same for routed experts with `columns` tokens each: ggml's kernel computes one by one, and the first one
        brings the weights into the caches."""
        further = sum(size / self._from_cache(name) for name, size in weights.items())
        return self.weights_seconds(weights) + further * max(0.0, columns - 1)

    def attention_seconds(self, multiply_adds: float, kv_type: str = "f16") -> float:
        """The time of attention over the KV cache. Without a measured speed the memory's bandwidth decides."""
        both = kv_types(kv_type)
        # Half of the work is with keys, half with values.
        return sum(multiply_adds / 2 / self._attention_speed(kind) for kind in (both.keys, both.values))

    def _attention_speed(self, kind: GgmlType) -> float:
        per_second = self.attention.get(kind.name) or min(self.attention.values(), default=0.0)
        return per_second or self.bandwidth * kind.block / kind.width

    def _from_cache(self, name: str) -> float:
        from_memory = self.one.get(name) or self.bandwidth
        return max(self.further.get(name, from_memory), from_memory)

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
    """A CPU or GPU. `node` is "" for this machine, else "host:port". Memory in bytes, as this process may use it.

    A GPU that does not report its memory counts as having none, so nothing is placed there.
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
    """The link to a node (by its address) or to a GPU (by its name): round trip in seconds, bytes per second."""

    to: str
    round_trip: float
    bandwidth: float

    def __post_init__(self) -> None:
        _not_negative("round_trip", self.round_trip)
        _above_zero("bandwidth", self.bandwidth)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the hardware can do, measured or told. `devices` begins with the CPU of this machine.

    `disk_read` is in bytes per second, 0 if unknown. Sampling one token takes `per_draw` seconds and `per_entry` for
    each entry of the vocabulary; the local CPU does it. `probe` identifies the measurement of the CPU's speeds.
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
            raise UsageError("a machine needs a CPU, named first")
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

    def usable(self) -> Machine:
        """The same machine with only the memory that a model may take."""
        devices = (replace(each, memory_free=usable(each.memory_free, each.kind)) for each in self.devices)
        return replace(self, devices=tuple(devices))

    def with_any_memory(self) -> Machine:
        """The same machine with memory for any model, so that only computing takes time."""
        home, *others = self.devices
        return replace(self, devices=(replace(home, memory_free=_ANY, memory_total=_ANY), *others))

    def corrected(self, factor: float) -> Machine:
        """The same machine with a CPU `factor` times as fast as measured."""
        home, *others = self.devices
        return replace(
            self,
            devices=(replace(home, speed=home.speed.times(factor)), *others),
            per_draw=self.per_draw / factor,
            per_entry=self.per_entry / factor,
        )

    def draw_seconds(self, vocab_size: int, samples: int = 1) -> float:
        """The time to sample one token of each sample."""
        return samples * (self.per_draw + self.per_entry * vocab_size)

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


def from_json(text: str, name: str) -> Machine:
    """The machine in a text from `Machine.to_json` or from `dsr doctor --json`.

    Raises UsageError that names the wrong field. Unknown fields are errors, because a misspelt field would otherwise
    become a default.
    """
    body = parse_json(text, name)
    if isinstance(body, dict) and body.get("schema") == "dsr.doctor/1":
        body = body.get("site")
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        raise UsageError(
            f"{name}: not a machine file (schema {SCHEMA})",
            hint="dsr doctor --json writes one for this machine",
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
        raise UsageError(f"{key}: not a list")
    for number, each in enumerate(listed):
        if not isinstance(each, dict):
            raise UsageError(f"{key}[{number}]: not an object")
    return [(f"{key}[{number}]", each) for number, each in enumerate(listed)]


_Record = TypeVar("_Record", Speed, Device, Link, Machine)


def _record(kind: type[_Record], body: object, place: str) -> _Record:
    """A dataclass from a JSON object with exactly its fields. Fields with a default are optional."""
    if not isinstance(body, dict):
        raise UsageError(f"{place}: is missing" if body is None else f"{place}: not an object")
    known = {each.name: each for each in fields(kind)}
    before = f"{place}." if place else ""
    for key in body:
        if key not in known:
            raise UsageError(f"{before}{key}: unknown field", hint=f"known: {', '.join(known)}")
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
    """Raises UsageError unless a value from JSON has the type of the field. true and false are not numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    fits, what = {
        "float": (number, "a number"),
        "int": (number and isinstance(value, int), "a whole number"),
        "str": (isinstance(value, str), "a text"),
        "bool": (isinstance(value, bool), "true or false"),
        "Mapping[str, float]": (isinstance(value, dict), "an object"),
    }.get(annotation, (True, ""))
    if not fits:
        raise UsageError(f"{place}: {value!r} is not {what}")
    if isinstance(value, dict) and annotation.startswith("Mapping"):
        for key, each in value.items():
            _check(f"{place}.{key}", each, "float")


def _above_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name}: {value} is not above zero")


def _not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name}: {value} is not a number of at least 0")
