from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.store.measurements import Measurements
from runtime.base.errors import Incompatible, NotFound, VerificationFailed

HERE = Conditions("a processor", 2, 8 << 30, "0.1", "0.3.36", load=0.02)
ROW = Measurement(
    kind="speed",
    model="nano",
    digest="d1",
    size=13_000_000,
    test="tg128",
    parameters={"threads": 2, "kv_type": "f16"},
    figures={"tokens_per_second": Figure(101.5, 1.25, 5)},
    conditions=HERE,
    at=1000.0,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "measurements.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Measurements]:
    with Measurements(path) as opened:
        yield opened


def test_a_row_comes_back_as_it_was(store: Measurements) -> None:
    store.add([ROW])
    [kept] = store.list()
    assert kept.id == 1
    assert kept.row == ROW
    assert store.get(1).row == ROW


def test_it_knows_whether_it_holds_the_same(store: Measurements) -> None:
    store.add([ROW])
    assert store.holds(replace(ROW, at=2000.0, conditions=replace(HERE, load=0.5)))
    others = (
        replace(ROW, digest="d2"),
        replace(ROW, test="tg64"),
        replace(ROW, kind="reason"),
        replace(ROW, parameters={"threads": 1, "kv_type": "f16"}),
        replace(ROW, figures={"tokens_per_second": Figure(101.6, 1.25, 5)}),
    )
    assert not any(map(store.holds, others))


def test_the_latest_come_first_and_can_be_chosen(store: Measurements) -> None:
    store.add([ROW, replace(ROW, kind="quality", test="kld"), replace(ROW, model="other", digest="d2")])
    assert [each.id for each in store.list()] == [3, 2, 1]
    assert [each.id for each in store.list(model="nano")] == [2, 1]
    assert [each.id for each in store.list(kind="quality")] == [2]
    assert [each.id for each in store.list(model="nano", test="tg128")] == [1]
    assert [each.id for each in store.list(limit=1)] == [3]


def test_the_newest_of_each_file_and_test(store: Measurements) -> None:
    store.add([ROW, replace(ROW, test="pp512"), replace(ROW, at=2000.0), replace(ROW, model="other", digest="d2")])
    assert [each.id for each in store.newest()] == [2, 3, 4]


def test_a_quick_or_disturbed_row_does_not_take_the_place_of_a_better_one(store: Measurements) -> None:
    few = replace(ROW, figures={name: replace(each, count=1) for name, each in ROW.figures.items()})
    disturbed = replace(ROW, conditions=replace(ROW.conditions, disturbed="heat"))
    other = replace(disturbed, digest="d2", test="pp512")
    store.add([ROW, few, disturbed, few, other, replace(other, at=2000.0)])
    assert [each.id for each in store.newest()] == [1, 6]


def test_a_row_of_another_engine_takes_the_place(store: Measurements) -> None:
    few = {name: replace(each, count=1) for name, each in ROW.figures.items()}
    store.add([ROW, replace(ROW, figures=few, conditions=replace(ROW.conditions, engine="9.9"))])
    assert [each.id for each in store.newest()] == [2]


def test_a_row_is_forgotten(store: Measurements) -> None:
    store.add([ROW])
    store.delete(1)
    assert store.list() == ()
    with pytest.raises(NotFound, match="no measurement 1"):
        store.delete(1)


def test_all_rows_of_a_run_are_kept_or_none(store: Measurements) -> None:
    broken = replace(ROW, parameters={"threads": {1}})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        store.add([ROW, broken])
    assert store.list() == ()


def test_a_file_of_a_newer_dsr_is_left_alone(path: Path) -> None:
    Measurements(path).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(Incompatible, match="newer dsr") as caught:
        Measurements(path)
    assert caught.value.hint == "update dsr, or bench with --no-log"


def wrong(**fields: object) -> str:
    return json.dumps({**ROW.json(), **fields})


@pytest.mark.parametrize(
    "body",
    [
        *("{}", "[]", "null", "5", "no JSON", '{"kind": "sport"}', "[" * 5000),
        wrong(model=True),
        wrong(size="1"),
        wrong(at=float("inf")),
        wrong(at=1e30),
        wrong(command=1.5),
        wrong(parameters={"a": []}),
        wrong(figures={"a": {"mean": None}}),
        wrong(figures={"a": {"mean": float("nan")}}),
        wrong(conditions={**asdict(HERE), "cores": "2"}),
    ],
)
def test_a_row_that_makes_no_sense_is_damage(store: Measurements, path: Path, body: str) -> None:
    store.add([ROW])
    raw = sqlite3.connect(path)
    raw.execute("UPDATE rows SET body = ?", (body,))
    raw.commit()
    raw.close()
    with pytest.raises(VerificationFailed, match=r"measurements\.sqlite is damaged"):
        store.list()


def test_conditions_tell_what_is_not_the_same() -> None:
    assert HERE.differences(replace(HERE, load=0.9, disturbed="throttled")) == ()
    assert HERE.differences(replace(HERE, cores=4, engine="0.4")) == ("cores", "engine")
