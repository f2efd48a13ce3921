"""A machine as data: what its speeds mean, and its JSON, which people write by hand too."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.machine.machine import Device, Link, Machine, Speed, from_json

GIB = 1 << 30

above_zero = st.floats(1e-3, 1e15)
by_type = st.dictionaries(st.sampled_from(["F16", "Q8_0", "Q4_K", "IQ2_XXS"]), above_zero)
seconds = st.floats(0, 10)
speeds = st.builds(
    Speed,
    bandwidth=above_zero,
    one=by_type,
    two=by_type,
    many=by_type,
    attention=by_type,
    further=by_type,
    per_layer=seconds,
    per_expert_layer=seconds,
    per_row=seconds,
    threads=st.integers(0, 512),
    assumed=st.booleans(),
)


@st.composite
def devices(draw: st.DrawFn) -> tuple[Device, ...]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        total = draw(st.integers(0, 1 << 50))
        found.append(
            Device(
                name=f"{draw(st.text(max_size=5))}{number}",
                kind="gpu" if number else "cpu",
                memory_free=draw(st.integers(0, total)),
                memory_total=total,
                speed=draw(speeds),
                node="" if number == 0 else draw(st.text(max_size=5)),
                description=draw(st.text(max_size=9)),
            )
        )
    return tuple(found)


machines = st.builds(
    Machine,
    name=st.text(max_size=9),
    devices=devices(),
    links=st.lists(st.builds(Link, to=st.text(max_size=5), round_trip=seconds, bandwidth=above_zero)).map(tuple),
    disk_read=st.floats(0, 1e12),
    numa_nodes=st.integers(1, 8),
    per_draw=seconds,
    per_entry=seconds,
)


@given(machines)
def test_a_machine_survives_its_json(machine: Machine) -> None:
    assert from_json(json.dumps(machine.to_json()), "file") == machine


@given(machines)
def test_what_doctor_writes_is_a_machine_too(machine: Machine) -> None:
    assert (
        from_json(json.dumps({"schema": "dsr.doctor/1", "healthy": True, "site": machine.to_json()}), "file") == machine
    )


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["schema", "name", "devices", "links", "speed", "site", "kind", "memory_free", "one"]), inner, max_size=5)
)))  # fmt: skip
def test_whatever_else_a_file_holds_is_refused(body: object) -> None:
    if isinstance(body, dict):
        body["schema"] = "dsr.machine/1"
    with pytest.raises(UsageError, match=r"^file: "):
        from_json(json.dumps(body), "file")


def speed(**changes: Any) -> dict[str, Any]:
    return {"bandwidth": 1e10, "one": {"Q4_K": 1e10}, "many": {"Q4_K": 2e9}} | changes


def cpu(**changes: Any) -> dict[str, Any]:
    return {"name": "CPU", "kind": "cpu", "memory_free": GIB, "memory_total": 2 * GIB, "speed": speed()} | changes


def machine(**changes: Any) -> str:
    return json.dumps({"schema": "dsr.machine/1", "name": "box", "devices": [cpu()]} | changes)


def test_what_has_a_default_may_be_left_out() -> None:
    found = from_json(machine(), "file")
    assert (found.links, found.disk_read, found.numa_nodes, found.devices[0].speed.two) == ((), 0.0, 1, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a machine file"),
        ('{"schema": "dsr.plan/1"}', "not a machine file"),
        ('{"schema": "dsr.doctor/1", "site": null}', "not a machine file"),
        (machine(devices=[]), "a machine needs a CPU, named first"),
        (machine(devices={}), "devices: not a list"),
        (machine(devices=[7]), "devices[0]: not an object"),
        (machine(devices=[cpu(kind="gpu")]), "a machine needs a CPU, named first"),
        (machine(devices=[cpu(kind="tpu")]), "devices[0].CPU: a device is a cpu or a gpu, not 'tpu'"),
        (machine(devices=[cpu(), cpu()]), "two devices are named CPU"),
        (machine(devices=[cpu(vram=1)]), "devices[0].vram: unknown field"),
        (machine(devices=[cpu(memory_free=1.5)]), "devices[0].memory_free: 1.5 is not a whole number"),
        (machine(devices=[cpu(memory_free=True)]), "devices[0].memory_free: True is not a whole number"),
        (machine(devices=[cpu(memory_free=-1)]), "devices[0].CPU: -1 bytes of 2147483648 cannot be free"),
        (machine(devices=[cpu(memory_free=3 * GIB)]), "devices[0].CPU: 3221225472 bytes of 2147483648 cannot be free"),
        (machine(devices=[cpu(speed=None)]), "devices[0].speed: is missing"),
        (machine(devices=[cpu(speed={"one": {}, "many": {}})]), "devices[0].speed.bandwidth: is missing"),
        (machine(devices=[cpu(speed=speed(bandwidth=0))]), "devices[0].speed.bandwidth: 0 is not above zero"),
        (
            machine(devices=[cpu(speed=speed(bandwidth=float("nan")))]),
            "devices[0].speed.bandwidth: nan is not a number",
        ),
        (machine(devices=[cpu(speed=speed(bandwidth=10**400))]), "devices[0].speed.bandwidth: 1000"),
        (machine(devices=[cpu(speed=speed(one={"Q4_K": 0}))]), "devices[0].speed.one.Q4_K: 0 is not above zero"),
        (
            machine(devices=[cpu(speed=speed(one={"Q4_K": "fast"}))]),
            "devices[0].speed.one.Q4_K: 'fast' is not a number",
        ),
        (machine(devices=[cpu(speed=speed(many={"Q4": 1}))]), "devices[0].speed.many: 'Q4' is not a tensor type"),
        (machine(links=[{"to": "a:1", "round_trip": 0, "bandwidth": 0}]), "links[0].bandwidth: 0 is not above zero"),
        (machine(links=[{"to": "a:1", "round_trip": -1, "bandwidth": 1}]), "links[0].round_trip: -1 is not a number"),
        (machine(links=[{"to": "a:1", "bandwidth": 1}]), "links[0].round_trip: is missing"),
        (machine(name=7), "name: 7 is not a text"),
        (machine(disk=7), "disk: unknown field"),
        (machine(numa_nodes=0), "numa_nodes is at least 1, not 0"),
    ],
)
def test_the_field_that_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_json(text, "box.json")
    assert caught.value.message.startswith(f"box.json: {message}")


SPEED = Speed(
    bandwidth=8e9,
    one={"Q8_0": 10.0, "Q4_K": 20.0},
    two={"Q8_0": 5.0},
    many={"Q8_0": 2.0, "Q4_K": 4.0},
    attention={"F16": 100.0, "Q8_0": 50.0},
)


@pytest.mark.parametrize(
    ("type_name", "columns", "expected"),
    [
        ("Q8_0", 1, 10.0),  # 100 bytes at 10 a second
        ("Q8_0", 2, 20.0),
        ("Q8_0", 8, 50.0),
        ("Q8_0", 5, 35.0),  # half way from 2 to 8
        ("Q8_0", 14, 80.0),  # beyond, with the same slope
        ("Q4_K", 1, 5.0),
        ("Q4_K", 2, 5.0 + 20.0 / 7),  # two were not measured: on the line from 1 to 8
        ("Q4_K", 8, 25.0),
    ],
)
def test_the_time_of_weights(type_name: str, columns: float, expected: float) -> None:
    assert SPEED.weights_seconds({type_name: 100}, columns) == pytest.approx(expected)


def test_types_add_up_and_unknown_ones_count_with_the_bandwidth_or_the_slowest() -> None:
    assert SPEED.weights_seconds({"Q8_0": 100, "Q4_K": 100}) == 15.0
    assert SPEED.weights_seconds({"Q6_K": 8_000_000_000}) == 1.0
    assert SPEED.weights_seconds({"Q6_K": 8}, 8) == pytest.approx(4.0)


def test_more_tokens_never_take_less_time_where_noise_says_so() -> None:
    noisy = Speed(bandwidth=1.0, one={"F16": 10.0}, two={"F16": 30.0}, many={"F16": 20.0})
    assert [noisy.weights_seconds({"F16": 60}, columns) for columns in (1, 2, 8, 20)] == [6.0, 6.0, 6.0, 6.0]


def test_an_expert_takes_its_tokens_one_by_one() -> None:
    assert SPEED.experts_seconds({"Q8_0": 100}, 2.5) == 25.0
    assert SPEED.experts_seconds({"Q8_0": 100}, 0.5) == 10.0


def test_further_tokens_of_an_expert_find_it_in_the_caches() -> None:
    quick = replace(SPEED, further={"Q8_0": 50.0, "Q4_K": 1.0})
    assert quick.experts_seconds({"Q8_0": 100}, 2.5) == 13.0
    assert quick.experts_seconds({"Q8_0": 100}, 0.5) == 10.0
    assert quick.experts_seconds({"Q4_K": 100}, 2) == SPEED.experts_seconds({"Q4_K": 100}, 2)  # disturbed
    assert quick.times(2).experts_seconds({"Q8_0": 100}, 2.5) == 6.5


def test_the_time_of_attention() -> None:
    assert SPEED.attention_seconds(200) == 2.0
    assert SPEED.attention_seconds(200, "q8_0") == 4.0
    assert SPEED.attention_seconds(200, "q4_0") == 4.0  # not measured: as slow as the slowest
    assert Speed(8.0, {}, {}).attention_seconds(16, "f16") == 4.0  # nothing measured: 2 bytes each


def test_the_time_of_drawing() -> None:
    machine = Machine("box", (Device("CPU", "cpu", 1, 1, SPEED),), per_draw=1.0, per_entry=0.5)
    assert machine.draw_seconds(4, 2) == 6.0
