"""Trials and thread counts without their cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dsr.loading.loading import host


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were tried in a child, which is left out."""
    tried: list[Path] = []
    monkeypatch.setattr("dsr.loading.tried_files.try_file", lambda card, *_, **__: tried.append(card.path))
    return tried


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The thread counts that were measured; the highest wins."""
    asked: list[tuple[int, ...]] = []

    def measure(backend: object, counts: tuple[int, ...]) -> int:
        asked.append(counts)
        return counts[-1]

    monkeypatch.setattr("runtime.machine.threads.measure", measure)
    monkeypatch.setattr("runtime.machine.threads.seconds_per_token", lambda backend: 0.01)
    monkeypatch.setattr("dsr.loading.load.probe", lambda: host(8 << 30))
    monkeypatch.setattr("dsr.loading.load.busy_cores", lambda: 0)
    return asked
