"""What every test gets: folders of its own, and none of the user's settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import hybrids


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes what belongs to the person who runs it."""
    for name in os.environ:
        if name.startswith(("DSR_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("DSR_HOME", str(tmp_path / "dsr-home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))


@pytest.fixture(scope="session")
def nano_path() -> Path:
    """The embedded model: a deepseek2 mixture of experts with 12 M parameters, Q8_0."""
    return Path(__file__).resolve().parents[1] / "dsr" / "data" / "nano.gguf"


@pytest.fixture(scope="session")
def hybrid_path(nano_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny random models by kind (`tests.hybrids.KINDS`), each written once."""
    folder = tmp_path_factory.mktemp("hybrids")

    def path(kind: str) -> Path:
        made = folder / f"{kind}.gguf"
        return made if made.exists() else hybrids.make(kind, made, nano_path)

    return path
