"""Accuracy against tokens as a chart."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.bench.reason.chart import chart
from dsr.bench.reason.rows import short_label
from dsr.bench.reason.tables import title
from dsr.cli import app
from tests.dsr.bench.reason.reasoning import faked, request_in, run


def test_each_line_of_the_table_is_a_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faked(monkeypatch)
    made = run(request_in(tmp_path))
    found = chart(made)
    assert [mark.name for mark in found.marks] == [score.row.label for score in made.scores]
    hollow = {mark.label: mark.hollow for mark in found.marks}
    assert (hollow["greedy"], hollow["vote 4 beta"], hollow["pass@4"]) == (False, False, True)
    assert found.title == title(made)
    assert "Hollow: an oracle" in found.lead


@pytest.mark.parametrize(
    ("label", "short"),
    [
        ("vote n=8 stop=none weights=confidence", "vote 8 confidence"),
        ("budget tokens=16 extensions=0", "budget tokens 16"),
        ("pass@8 (oracle)", "pass@8"),
    ],
)
def test_settings_that_are_none_or_0_are_left_out(label: str, short: str) -> None:
    assert short_label(label) == short


@pytest.mark.parametrize("bench", ["reason", "experts"])
def test_a_plot_that_is_not_svg_is_refused_before_the_model_is_looked_for(bench: str) -> None:
    result = CliRunner().invoke(app, ["bench", bench, "nowhere.gguf", "--plot", "p.png"])
    assert result.exit_code == 2
    assert result.stderr == "error: p.png: a plot is written as SVG only\nhint: --plot FILE.svg\n"
