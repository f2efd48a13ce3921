from __future__ import annotations

from dataclasses import replace

import pytest

from dsr.models.catalog import Catalog, CatalogEntry
from dsr.plan.suggest import candidates, recent_thinkers, strength, suggestion
from tests.dsr.plan.planning import GIB, a_machine, cpu


def entry(name: str, parameters: float, active: float | None = None, **changes: object) -> CatalogEntry:
    made = CatalogEntry(
        names=(name,),
        model=name.title(),
        family="any",
        parameters=int(parameters * 1e9),
        active_parameters=int((active or parameters) * 1e9),
        gguf=f"org/{name}-GGUF",
        original=f"org/{name}",
        licence="MIT",
        thinking="optional",
        layers=32,
        context=32768,
        released="2026-05",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


DENSE = entry("dense:14b", 14)
EXPERTS = entry("experts:30b-a3b", 30, 3)
SMALL = entry("small:2b", 2)


def named(*entries: CatalogEntry, gigabytes: int = 32, bandwidth: float = 20e9) -> str | None:
    row = suggestion(recent_thinkers(Catalog(entries)), a_machine(cpu(gigabytes * GIB, bandwidth)))
    return row.name if row else None


def test_experts_count_as_the_geometric_mean() -> None:
    assert strength(EXPERTS) == pytest.approx(9.487e9, rel=1e-3)
    assert strength(DENSE) == 14e9


def test_the_strongest_model_that_runs_as_fast_as_reading_is_suggested() -> None:
    assert named(DENSE, EXPERTS, SMALL, bandwidth=200e9) == "dense:14b"
    assert named(DENSE, EXPERTS, SMALL, bandwidth=30e9) == "experts:30b-a3b"
    assert named(DENSE, EXPERTS, SMALL, bandwidth=30e9, gigabytes=8) == "small:2b"


def test_where_all_are_slow_the_fastest_is_suggested() -> None:
    assert named(DENSE, EXPERTS, bandwidth=2e9) == "experts:30b-a3b"


def test_nothing_is_suggested_where_nothing_fits() -> None:
    assert named(DENSE, EXPERTS, gigabytes=1) is None


def test_only_models_that_think_and_are_of_the_last_year_are_suggested() -> None:
    mute, old = replace(DENSE, thinking="none"), replace(DENSE, names=("old:14b",), released="2025-05")
    assert named(mute, old, SMALL, bandwidth=200e9) == "small:2b"


def test_candidates_are_those_that_fit_the_strongest_first() -> None:
    machine = a_machine(cpu(24 * GIB))
    assert [each.name for each in candidates([SMALL, EXPERTS, DENSE, entry("huge:70b", 70)], machine)] == [
        "dense:14b", "experts:30b-a3b", "small:2b",
    ]  # fmt: skip
