"""A user's command: what it is given, what counts as passed, and that it can never hang."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from runtime.base.errors import UsageError
from runtime.strategies.checker import Checker

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


def test_the_answer_is_on_standard_input_and_the_question_in_the_environment() -> None:
    checker = Checker('read line; test "$line" = 42 && test "$DSR_QUESTION" = "how many?"')
    assert checker.check("42\n", {"DSR_QUESTION": "how many?"}) == "passed"
    assert checker.check("43\n", {"DSR_QUESTION": "how many?"}) == "failed"


@pytest.mark.parametrize("command", ["true", "exec 0<&-; true", "cat >&2"])
def test_a_command_need_not_read_and_may_talk(command: str) -> None:
    assert Checker(command).check("x" * 3_000_000, {"DSR_QUESTION": "é\0" * 200_000}) == "passed"


def test_time_is_limited_also_for_what_the_command_leaves_behind(tmp_path: Path) -> None:
    for command, outcome in (("sleep 900", "timed out"), ("exit 0", "passed")):
        checker = Checker(f"sleep 900 & echo $! >> {tmp_path}/children; {command}", seconds=0.3)
        assert checker.check("4", {}) == outcome
    for child in (tmp_path / "children").read_text().split():
        wait_for_end(int(child))  # longer than a test may take, if nobody kills it


def wait_for_end(process: int) -> None:
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
            os.sched_yield()


@pytest.mark.parametrize("command", ["no-such-command-anywhere 1", "/no/such/path", "cd / && no-such-command-anywhere"])
def test_a_missing_command_is_told(command: str) -> None:
    with pytest.raises(UsageError, match="cannot be run") as caught:
        Checker(command).check("4", {})
    assert caught.value.hint is not None and "standard input" in caught.value.hint


def test_a_file_that_is_no_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not executable")
    with pytest.raises(UsageError, match="cannot be run"):
        Checker(f"{tmp_path}/text").check("4", {})


def test_a_missing_command_is_told_before_it_is_needed() -> None:
    with pytest.raises(UsageError, match="cannot be run"):
        Checker("no-such-command-anywhere 1").check_exists()
    for command in ("true", "test -n 'unclosed", "X=1 true", "(exit 0)", "if true; then true; fi"):
        Checker(command).check_exists()


@pytest.mark.parametrize("command", ["", "  ", "tr\0ue"])
def test_no_command_is_no_checker(command: str) -> None:
    with pytest.raises(UsageError):
        Checker(command)
