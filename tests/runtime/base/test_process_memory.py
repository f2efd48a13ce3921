"""The memory of a process."""

from __future__ import annotations

import sys

import pytest

from runtime.base.process_memory import data_memory, own_memory, status_bytes


def test_a_process_that_is_not_there_has_no_memory() -> None:
    assert own_memory(1 << 30) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_linux_counts_bytes() -> None:
    assert data_memory() > 1 << 20
    assert status_bytes("RssAnon", "RssFile") >= status_bytes("RssFile") > 0
    assert status_bytes("NoSuchField") == 0
