"""Reading a file past the system's cache: a speed, or zero where there is none to tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.machine.disk import read_speed

DIRECT = getattr(os, "O_DIRECT", 0)


def test_a_file_has_a_speed(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes((5 << 20) + 17))
    assert read_speed(file) > 0


def test_too_little_to_tell(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes(1000))
    assert read_speed(file) == 0
    assert read_speed(tmp_path / "missing") == 0
    assert read_speed(tmp_path) == 0


@pytest.mark.skipif(not DIRECT, reason="no direct reads on this system")
def test_a_file_system_without_direct_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes(2 << 20))
    opened = os.open

    def without_direct(path: Any, flags: int) -> int:
        if flags & DIRECT:
            raise OSError(22, "Invalid argument")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", without_direct)
    assert read_speed(file) > 0
