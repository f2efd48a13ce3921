"""A bench of reasoning with a fake model, for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.bench.reason.bench import ReasonRequest
from tests.dsr.bench.reason.reasoning import Fake, faked, request_in


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return faked(monkeypatch)


@pytest.fixture
def request_(tmp_path: Path) -> ReasonRequest:
    return request_in(tmp_path)
