"""Accuracy against tokens, drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.ui import plots
from dsr.ui.plots import EXPERTS, Point, check, mark, save, scatter
from runtime.base.errors import UsageError


def point(tokens: float, accuracy: float, label: str = "x") -> Point:
    return Point(label, tokens, accuracy, accuracy - 1, accuracy + 1)


def test_a_scatter_in_a_terminal() -> None:
    drawn = scatter([point(10, 80), point(100, 85), point(1000, 90), point(1000, 90)], width=48, height=5)
    assert drawn == [
        " 90 % ┤                                        ●",
        "      │",
        " 85 % ┤                    b",
        "      │",
        " 80 % ┤a",
        "      └────────────────────────────────────────",
        "      10 tokens per question, logarithmic  1000",
    ]


def test_experts_are_counted_on_an_even_scale() -> None:
    drawn = scatter([point(4, 80), point(8, 85), point(16, 90)], width=48, height=5, axis=EXPERTS)
    assert drawn == [
        " 90 % ┤                                        c",
        "      │",
        " 85 % ┤             b",
        "      │",
        " 80 % ┤a",
        "      └────────────────────────────────────────",
        "      4      experts kept in each layer      16",
    ]


@pytest.mark.parametrize("points", [[point(50, 100)], [point(50, 0)], [point(0, 0), point(0, 0)]])
def test_points_that_span_nothing_have_a_place(points: list[Point]) -> None:
    drawn = scatter(points, width=60, height=8)
    assert any("a" in line.split("┤")[-1].split("│")[-1] or "●" in line for line in drawn[:8])
    assert max(map(len, drawn)) <= 60


def test_marks_on_one_place_are_written_together() -> None:
    found = plots.marks_by_place([point(461, 90), point(115, 87), point(459, 90.2)])
    assert found == [(point(461, 90), "ac"), (point(115, 87), "b")]


def test_nothing_is_drawn_of_nothing() -> None:
    assert scatter([]) == []


def test_marks_begin_again_when_there_are_too_many() -> None:
    assert [mark(number) for number in (0, 25, 26, 61, 62)] == ["a", "z", "A", "9", "a"]


def test_a_plot_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a plot is one of \.png, \.svg"):
        check(tmp_path / "plot.pdf")
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as raised:
        check(tmp_path / "plot.svg")
    assert raised.value.message == "--plot needs matplotlib, which is not installed"
    assert raised.value.hint == "pip install 'dsr-cli[plots]'"


@pytest.mark.parametrize(("name", "begins"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml")])
def test_a_picture_is_written(tmp_path: Path, name: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    joined = [Point("own", across, 90, 85, 95, series="own") for across in (8, 4)]
    save([point(10, 80, "direct"), Point("oracle", 50, 90, 85, 95, hollow=True), *joined], tmp_path / name, "a & b")
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [file.name for file in tmp_path.iterdir()] == [name]
