"""The embedded model, opened once for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.llama import LlamaBackend, OpenOptions


@pytest.fixture(scope="module")
def opened_nano(nano_path: Path) -> Iterator[LlamaBackend]:
    with LlamaBackend(nano_path, OpenOptions(context=4096, slots=8, visible=("<think>", "</think>"))) as backend:
        yield backend


@pytest.fixture
def backend(opened_nano: LlamaBackend) -> LlamaBackend:
    for slot in range(opened_nano.slots + 1):
        opened_nano.trim(slot, 0)
    return opened_nano
