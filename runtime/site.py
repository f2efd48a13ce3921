"""What there is to run a model on: devices with their speeds, the links to other machines, the disk. Pure data.

A site is measured once (`runtime.probing`), kept, and can be written as JSON to plan for a machine that is not here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runtime.errors import UsageError
from runtime.types import ByteCount

SCHEMA = "dsr.machine/1"


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a device multiplies weights with activations, in bytes of weights per second.

    `one` by ggml type ("Q4_K"), for one token; `many` for eight tokens together, where the same weights serve all. A
    type that was not measured counts with `bandwidth`, bytes per second from its memory. `per_layer` is what one layer
    costs beside its weights, in seconds.
    """

    bandwidth: float
    one: Mapping[str, float]
    many: Mapping[str, float]
    per_layer: float = 0.0

    def __post_init__(self) -> None:
        if (
            self.bandwidth <= 0
            or self.per_layer < 0
            or any(each <= 0 for each in (*self.one.values(), *self.many.values()))
        ):
            raise UsageError("a speed must be above zero")


@dataclass(frozen=True, slots=True)
class Device:
    """`node` is "" for this machine, else its "host:port". Memory in bytes, free as this process may use it."""

    name: str
    kind: Literal["cpu", "gpu"]
    memory_free: int
    memory_total: int
    speed: Speed
    node: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """The way to a node: seconds for a message there and back, bytes per second. Also PCIe to a GPU, by its name."""

    to: str
    round_trip: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Site:
    """`devices` has this machine's CPU first. `disk_read` in bytes per second, 0 where it is not known."""

    name: str
    devices: tuple[Device, ...]
    links: tuple[Link, ...] = ()
    disk_read: float = 0.0

    def __post_init__(self) -> None:
        if not self.devices or self.devices[0].kind != "cpu" or self.devices[0].node:
            raise UsageError("a machine has a CPU of its own, named first")

    @property
    def memory_free(self) -> ByteCount:
        return ByteCount(sum(device.memory_free for device in self.devices))

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


def from_json(text: str, name: str) -> Site:
    """A site as `to_json` has it. Raises UsageError that names the field."""
    try:
        body = json.loads(text)
        if body.get("schema") != SCHEMA:
            raise UsageError(f"{name}: is not a machine that dsr doctor --json wrote (schema {SCHEMA})")
        devices = tuple(Device(**{**each, "speed": Speed(**each["speed"])}) for each in body["devices"])
        links = tuple(Link(**each) for each in body.get("links", ()))
        return Site(body["name"], devices, links, float(body.get("disk_read", 0)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{name}: is no machine: {error}") from error
