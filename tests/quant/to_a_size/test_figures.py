"""Measured numbers in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant.to_a_size.figures import Figures


def test_figures_are_there_the_next_time(tmp_path: Path) -> None:
    figures = Figures(tmp_path / "new" / "figures.json", "key")
    figures.put({"a": 1.5, "b": 2.0})
    figures.put({"b": 3.0})
    again = Figures(tmp_path / "new" / "figures.json", "key")
    assert (again["a"], again["b"], "c" in again) == (1.5, 3.0, False)


def test_figures_of_another_key_are_forgotten(tmp_path: Path) -> None:
    Figures(tmp_path / "figures.json", "one").put({"a": 1.0})
    assert "a" not in Figures(tmp_path / "figures.json", "other")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"key": "key"}',
        b'{"key": "key", "figures": {"a": "x"}}',
        b'{"key": "key", "figures": {"a": NaN}}',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "figures.json"
    path.write_bytes(content)
    figures = Figures(path, "key")
    assert "a" not in figures
    figures.put({"a": 1.0})
    assert Figures(path, "key")["a"] == 1.0
