"""Copies text to the clipboard: by the terminal itself (OSC 52, also over ssh) and by a program of the platform."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from dsr.ui.console import is_terminal
from dsr.ui.streams import write_err
from runtime.base.errors import DsrError

# xterm takes at most 1,000,000 bytes of base64, and several terminals 100,000: a longer text would arrive cut.
_MOST_BASE64 = 100_000
_SECONDS = 5  # a program that takes longer waits for something that does not come
_PROGRAMS: tuple[tuple[str, Sequence[str]], ...] = (
    ("", ("pbcopy",)),
    ("", ("clip.exe",)),
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
)


def copy(text: str) -> str:
    """Copies the text; returns how, and what to do if that fails unseen. Raises DsrError where nobody can take it."""
    by = ""
    if (program := _program()) is not None and _fed(program, text):
        by = f"with {program[0]}"
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    if is_terminal(sys.stderr) and len(encoded) <= _MOST_BASE64:
        write_err(f"\x1b]52;c;{encoded}\x07")
        # A terminal does not answer: whether it has the text shows only when the user pastes it.
        by = by or "by the terminal; if it pastes nothing, it allows no copying: /export FILE"
    if not by:
        raise DsrError(
            "no clipboard takes this text", hint="install wl-copy or xclip, or write it to a file: /export FILE"
        )
    return by


def _program() -> Sequence[str] | None:
    """The first program that is installed and has a display to copy to."""
    for variable, command in _PROGRAMS:
        if (not variable or os.environ.get(variable)) and shutil.which(command[0]):
            return command
    return None


def _fed(command: Sequence[str], text: str) -> bool:
    # clip.exe reads UTF-16 with a mark of its order; the others read UTF-8.
    data = text.encode("utf-16" if command[0] == "clip.exe" else "utf-8", "replace")
    try:
        done = subprocess.run(
            command, input=data, timeout=_SECONDS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
