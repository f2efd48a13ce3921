"""A user's command that says whether an answer is right. The one place where answering starts a process."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from runtime.base.errors import UsageError

Outcome = Literal["passed", "failed", "timed out"]

# What a shell says of a command it cannot run or find (POSIX, Shell Command Language, 2.8.2).
_CANNOT_RUN, _NOT_FOUND = 126, 127
_LONGEST_VARIABLE = 100_000  # bytes; Linux takes 128 KiB for one
_HINT = "--set check='python3 check.py': it gets the answer on its standard input, and 0 means solved"


@dataclass(frozen=True, slots=True)
class Checker:
    """`command` is run by the shell, in a process group of its own, for at most `seconds`."""

    command: str
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.command.strip():
            raise UsageError("repeated sampling needs a command that checks an answer", hint=_HINT)
        if "\0" in self.command:
            raise UsageError("the command that checks answers has a NUL character in it")

    def check(self, text: str, variables: Mapping[str, str]) -> Outcome:
        """Exit code 0 passes. Raises UsageError when there is no such command."""
        code = self._run(self.command, text, variables)
        if code in (_CANNOT_RUN, _NOT_FOUND):
            raise self._missing()
        return "timed out" if code is None else "passed" if code == 0 else "failed"

    def check_exists(self) -> None:
        """Raise UsageError when the shell does not know the command, before an answer is drawn."""
        with suppress(ValueError):
            words = shlex.split(self.command)
            plain = bool(words) and not set("=$`(){}<>|&;!*?~\"'") & set(words[0])
            if (
                plain
                and os.name == "posix"
                and self._run(f"command -v {shlex.quote(words[0])}", "", {}) not in (0, None)
            ):
                raise self._missing()

    def _missing(self) -> UsageError:
        return UsageError(f"the command that checks answers cannot be run: {self.command}", hint=_HINT)

    def _run(self, command: str, text: str, variables: Mapping[str, str]) -> int | None:
        """The exit code; None when the time limit was reached."""
        environment = {**os.environ, **{name: _bounded(value) for name, value in variables.items()}}
        # A file and not a pipe: nobody waits for a command that does not read.
        with tempfile.TemporaryFile() as standard_input:
            standard_input.write(text.encode(errors="replace"))
            standard_input.seek(0)
            try:
                process = subprocess.Popen(
                    command, shell=True, stdin=standard_input, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    env=environment, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise UsageError(f"the command that checks answers cannot be started: {error}", hint=_HINT) from error
            try:
                return process.wait(self.seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command with all processes it started."""
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _bounded(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace")[:_LONGEST_VARIABLE].decode(errors="ignore")
