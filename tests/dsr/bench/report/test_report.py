"""`dsr bench report`: what was measured, as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.cli import app
from dsr.store import paths
from dsr.store.measurement import Measurement
from dsr.store.measurements import Measurements
from tests.dsr.bench.report.pages import check
from tests.dsr.bench.report.rows import ROWS, quality

RUNNER = CliRunner()


def keep(rows: Sequence[Measurement]) -> None:
    with Measurements(paths.measurements_file()) as store:
        store.add(rows)


def test_without_measurements_there_is_a_next_step(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["bench", "report", "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 3
    assert result.stderr == "error: nothing has been measured yet\nhint: dsr bench all nano\n"
    assert not (tmp_path / "page.html").exists()


def test_the_page_goes_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep(ROWS)
    result = RUNNER.invoke(app, ["bench", "report"])
    assert result.stdout == "dsr-report.html\n"
    check((tmp_path / "dsr-report.html").read_text(encoding="utf-8"), drawn=5)


def test_the_newest_rows_count(tmp_path: Path) -> None:
    keep([ROWS[0]])
    keep([quality("q4.gguf", 0.05)])
    text = tmp_path / "made" / "r.md"
    result = RUNNER.invoke(app, ["bench", "report", "q4.gguf", "--markdown", str(text), "-q"])
    assert result.stdout.splitlines() == [str(text.with_name("r-loss.svg")), str(text)]
    assert "![Loss of smaller files](<r-loss.svg>)" in text.read_text(encoding="utf-8")
    assert "| q4 | 4.00 MiB | 0.0500 ± 0.0050 |" in text.read_text(encoding="utf-8")


def test_the_report_as_one_object(tmp_path: Path) -> None:
    keep(ROWS)
    result = RUNNER.invoke(app, ["bench", "report", "nano", "--out", str(tmp_path / "p.html"), "--json"])
    found = json.loads(result.stdout)
    assert found["schema"] == "dsr.bench.report/1"
    assert found["files"] == [str(tmp_path / "p.html")]
    assert [each["name"] for each in found["charts"]] == [
        "loss",
        "accuracy",
        "speed",
        "strategies",
        "votes",
        "memory",
        "experts",
    ]
    assert found["charts"][4]["points"][3]["up"] == 400.0
    [table] = found["tables"]
    assert table["files"] == [{"model": "nano", "name": "nano", "reference": False}]
    assert [column["title"] for column in table["columns"]][-1] == "memory"


def test_the_page_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address))
    keep(ROWS)
    result = RUNNER.invoke(app, ["bench", "report", "--out", str(tmp_path / "p.html"), "--open"])
    assert opened == [(tmp_path / "p.html").as_uri()]
    assert "found no browser" in result.stderr


def test_one_file_cannot_be_both(tmp_path: Path) -> None:
    keep(ROWS)
    same = str(tmp_path / "x")
    result = RUNNER.invoke(app, ["bench", "report", "--out", same, "--markdown", same])
    assert result.exit_code == 2
    assert "cannot be the page and its Markdown" in result.stderr


def test_a_report_takes_the_place_of_a_report_alone(tmp_path: Path) -> None:
    keep(ROWS)
    page, notes = tmp_path / "page.html", tmp_path / "notes.md"
    command = ["bench", "report", "--out", str(page), "--markdown", str(notes)]
    assert [RUNNER.invoke(app, command).exit_code for _ in range(2)] == [0, 0]
    before = page.read_text(encoding="utf-8")
    notes.write_text("my notes\n")
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {notes}: this file is not a report of dsr, so it stays\nhint: name another file with --out\n"
    )
    assert (page.read_text(encoding="utf-8"), notes.read_text()) == (before, "my notes\n")
