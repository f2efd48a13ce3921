"""The user's own editor: for a message, and for a file."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from runtime.base.errors import DsrError, UsageError
from runtime.base.texts import read_text

_USUAL = ("editor", "nano", "vim", "vi", "notepad.exe")


def editor_command() -> list[str]:
    """`$VISUAL`, else `$EDITOR`, else an editor that is installed. Raises UsageError."""
    told = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if told:
        try:
            words = shlex.split(told)
        except ValueError:
            raise UsageError(f"EDITOR={told!r}: a quotation mark is missing") from None
        if words and shutil.which(words[0]):
            return words
        raise UsageError(f"EDITOR={told!r}: there is no such program", hint="set EDITOR to one, such as nano")
    found = next((each for each in _USUAL if shutil.which(each)), None)
    if found is None:
        raise UsageError("there is no editor", hint="set EDITOR to one, such as nano")
    return [found]


def edit_file(file: Path) -> None:
    """Open a file in the editor until it is closed. Raises UsageError without one, DsrError if it fails."""
    command = editor_command()
    try:
        done = subprocess.run([*command, str(file)], check=False)
    except OSError as error:
        raise DsrError(f"{command[0]}: cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        raise DsrError(f"{command[0]} ended with exit code {done.returncode}; its text is not used")


def edited(text: str) -> str:
    """The text after the user changed it in an editor; "" for none. Raises as `edit_file` does."""
    with tempfile.TemporaryDirectory(prefix="dsr-") as folder:  # only its owner can read it
        file = Path(folder) / "message.md"
        file.write_text(text, encoding="utf-8")
        edit_file(file)
        return read_text(file).strip()
