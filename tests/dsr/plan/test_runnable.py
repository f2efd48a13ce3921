"""Which models would run, and in which order they are listed."""

from __future__ import annotations

import pytest

from dsr.loading.options import LoadOptions
from dsr.plan.runnable import runnable_models
from runtime.machine.machine import free_for
from tests.dsr.plan.planning import GIB, MIB, a_machine, cpu


def test_the_list_ranks_what_fits_the_slow_last(monkeypatch: pytest.MonkeyPatch) -> None:
    here, catalogue = runnable_models(a_machine(cpu(free_for(12 * GIB))), LoadOptions())
    assert [row.name for row in here] == ["nano"]
    assert not here[0].estimated
    by_name = {row.name: row for row in catalogue}
    assert "deepseek-r1:671b" not in by_name
    assert by_name["qwen3:8b"].quant == "Q4_K_M"
    assert by_name["qwen3:8b"].larger == ("Q5_K_M", "Q6_K", "Q8_0")
    assert all(row.memory <= 12 * GIB and row.estimated for row in catalogue)
    disk = [row.from_disk for row in catalogue]
    assert any(disk)
    assert disk == sorted(disk)  # those that run from the disk come last
    fast = [row.tokens_per_second >= 5 for row in catalogue if not row.from_disk]
    assert fast == sorted(fast, reverse=True)
    parameters = [row.parameters for row, is_fast in zip(catalogue, fast, strict=False) if is_fast]
    assert parameters == sorted(parameters, reverse=True)


def test_where_the_usual_quantization_does_not_fit_a_smaller_one_is_named() -> None:
    _, catalogue = runnable_models(a_machine(cpu(free_for(15 * GIB))), LoadOptions(2048))
    by_name = {row.name: row for row in catalogue}
    assert by_name["deepseek-r1:32b"].quant in ("Q2_K", "Q3_K_M")


def test_where_nothing_fits_the_list_is_empty() -> None:
    assert runnable_models(a_machine(cpu(8 * MIB)), LoadOptions()) == ((), ())
