"""`dsr bench reason` as a process: what it does when it is ended by a signal, and when the reader of its table left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsr.store import paths
from dsr.store.measurements import Measurements

COMMAND = (sys.executable, "-m", "dsr", "bench", "reason", "nano", "-t", "1", "--strategies", "direct", "--temp", "1")
DRAWN = 16  # samples: then one problem at least has all its four, for only four samples are drawn at once


def strategy_rows(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def stopped_by(number: signal.Signals, folder: Path, drawn: int) -> tuple[int, str]:
    """The exit code and what was said, when all 400 problems were to be asked and so many samples were there."""
    command = [*COMMAND, "--samples", "4", "--slots", "4", "-o", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while len(strategy_rows(folder / "samples.jsonl")) < drawn and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait(), process.stderr.read()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "wanted"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_what_was_drawn(number: signal.Signals, wanted: int, tmp_path: Path) -> None:
    code, said = stopped_by(number, tmp_path, DRAWN)
    assert code == wanted
    assert said.rstrip().endswith("stopped; repeat the command to resume") and "Traceback" not in said
    kept = strategy_rows(tmp_path / "samples.jsonl")
    assert DRAWN <= len(kept) < 1600
    with Measurements(paths.measurements_file()) as store:
        [direct] = [each.row for each in store.list(kind="reason")]
    assert 1 <= int(direct.parameters["problems"] or 0) < 400
    assert stopped_by(number, tmp_path, len(kept) + DRAWN)[0] == wanted
    assert strategy_rows(tmp_path / "samples.jsonl")[: len(kept)] == kept


@pytest.mark.skipif(os.name != "posix", reason="a pipe without a reader")
def test_a_reader_who_left_costs_no_file_and_no_row(tmp_path: Path) -> None:
    page, reading, writing = tmp_path / "t.md", *os.pipe()
    os.close(reading)
    command = [*COMMAND, "--limit", "1", "--samples", "1", "-n", "20", "--markdown", str(page)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "| `direct` |" in page.read_text(encoding="utf-8")
    with Measurements(paths.measurements_file()) as store:
        assert [each.row.test for each in store.list(kind="reason")] == ["direct"]
