"""Profiles of the embedded model, made once for all tests that need them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dsr.experts.profile import ProfileRequest, make_profiles
from dsr.models.library import find
from dsr.store import paths
from runtime.base.run import Run


@pytest.fixture(scope="session")
def profiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dsr's folder with profiles of two tasks and of a text. Measured values in it stay for the next test."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSR_HOME", str(folder))
        for task in ("addsub", "reverse"):
            make_profiles(find("nano"), ProfileRequest(task=task, limit=16, max_tokens=120), Run(threads=1))
        (folder / "text").write_text("Tom has 3 red apples and gives 2 of them to Mary. " * 40)
        make_profiles(find("nano"), ProfileRequest(text=folder / "text", task="tales"), Run(threads=1))
    return folder


@pytest.fixture
def profiled(profiled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DSR_HOME", str(profiled_folder))
    yield
    paths.conversations_file().unlink(missing_ok=True)
