from __future__ import annotations

import os
from pathlib import Path

from dsr import __version__
from tests.recording import PAGE, STEPS, Step, recorded
from tests.sections import replaced


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "DSR_HOME": str(home)}


def test_a_recording_is_what_the_screen_shows(tmp_path: Path) -> None:
    assert recorded([Step("dsr --version")], environment(tmp_path)) == f"$ dsr --version\ndsr {__version__}\n"


def test_a_person_types_into_a_recorded_conversation(tmp_path: Path) -> None:
    said = recorded([Step("dsr chat nano --no-log", ("/nonsense", "/bye"))], environment(tmp_path))
    assert ">>> /nonsense\n" in said
    assert said.endswith(">>> /bye\n")


def test_the_guide_has_a_recording_of_every_step() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, "recording", "x") != page
    for step in STEPS:
        assert f"\n$ {step.command}\n" in page
        assert all(f">>> {line}\n" in page for line in step.typed)
