"""The memory of a model before it is opened."""

from __future__ import annotations

import pytest

from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.serve.process import opening
from dsr.serve.process.opening import memory_need
from runtime.base.types import ByteCount
from runtime.machine.host import probe
from runtime.placement import memory

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    host = replace(probe(), memory_total=ByteCount(64 * GIB), memory_available=ByteCount(32 * GIB))
    monkeypatch.setattr(opening, "probe", lambda: host)


def test_idle_texts_count_as_much_as_the_cache() -> None:
    nano = library.find("nano")
    need = memory_need(nano, LoadOptions(1024, slots=4))
    assert need.model == memory.need(nano.card, 1024, 4).total
    assert need.host_cache == memory.need(nano.card, 1024, 4).kv_cache
    assert need.total == need.model + need.host_cache


def test_a_draft_model_counts() -> None:
    nano = library.find("nano")
    need = memory_need(nano, LoadOptions(1024, draft="nano"))
    drafted = LoadOptions(draft="nano").drafted
    assert drafted > 0
    assert need.model == memory.need(nano.card, 1024, 1, "f16", drafted).total + memory.need(nano.card, 1024).total
