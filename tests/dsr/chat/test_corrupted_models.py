"""Corrupted and absurd models through the whole of `dsr chat`: an answer or one line, never a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.cli import app
from runtime.base.types import ByteCount
from tests.corrupted_chats import ARGUMENTS, Outcome, header_problem, headers
from tests.gguf_writer import llama_metadata, write

ROOT = Path(__file__).resolve().parents[3]
MEMORY = ByteCount(16 << 30)


@pytest.mark.timeout(600)  # 28 s on a busy machine
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each copy is tried in a fork")
def test_every_corrupted_copy_is_answered_or_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.corrupted_chats", str(tmp_path), "300"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    outcomes = [Outcome(**fields) for fields in json.loads(child.stdout)]
    assert len(outcomes) == 400
    bad = [f"{outcome.what}: {outcome.problem}\n{outcome.stderr}" for outcome in outcomes if outcome.problem]
    assert not bad, "\n".join(bad)
    # Some are caught by our checks and some are harmless; otherwise this would test nothing.
    tally = Counter(outcome.code for outcome in outcomes)
    assert tally[0] + tally[1] > 10
    assert tally[4] > 100


def test_our_own_checks_end_with_one_line_or_a_model() -> None:
    bad = [f"{what}: {problem}" for what, data in headers(600, seed=5) if (problem := header_problem(data, MEMORY))]
    assert not bad, "\n".join(bad)


def test_a_vocabulary_that_cannot_spell_the_prompt(tmp_path: Path) -> None:
    """It has letters a, b and c alone, and the prompt is 'hi'."""
    path = write(tmp_path / "abc.gguf", llama_metadata(**{"tokenizer.chat_template": "{{ messages[0].content }}"}))
    result = CliRunner().invoke(app, ["chat", str(path), *ARGUMENTS])
    assert result.exit_code == 7
    assert result.stderr == "error: the prompt came out empty: the model's vocabulary cannot spell it\n"
