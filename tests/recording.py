"""Records the first five minutes with dsr as text for docs/guides/first-model.md: `python tests/recording.py`.

Each command runs at a terminal of 80 columns, with empty folders and without a network. A hub on this machine has a
copy of nano, so that the pull and the answers are real everywhere. What the screen showed in the end is written down;
of long lists only the beginning and the end. Figures are those of the machine that records.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.dsr.ui.markdown.emulator import Terminal  # noqa: E402
from tests.hub_server import HubServer  # noqa: E402
from tests.sections import replace  # noqa: E402

PAGE = ROOT / "docs" / "guides" / "first-model.md"
COLUMNS, ROWS = 80, 24
PROMPT = ">>>"
_LONGEST = 32  # lines of a command's output; of more, the first and the last stay
_KEPT = 8
_QUIET = 1.0  # seconds without output, after which a prompt waits for a person
_MOST_SECONDS = 300.0
# What a terminal takes without showing anything: modes, titles, the keypad.
_UNSEEN = re.compile(r"\x1b\][^\x07]*\x07|\x1b[=>]|\x1b\[\?[\d;]*[hl]|\x07")


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and the lines that a person types into it."""

    command: str
    typed: tuple[str, ...] = ()


STEPS = (
    Step("dsr"),
    Step('dsr chat "What is 347 + 586?"'),
    Step("dsr chat hi"),
    Step("dsr list --fits"),
    Step("dsr"),
    Step("dsr pull demo/nano-GGUF"),
    Step("dsr list"),
    Step("dsr chat demo/nano-GGUF", ("What is 48 + 17?", "/vote 8", "What is 347 + 158?", "/why", "/bye")),
    Step("dsr history"),
)


def recorded(steps: Sequence[Step], environment: dict[str, str]) -> str:
    """The commands with what the screen showed, as text."""
    return "\n".join(f"$ {step.command}\n" + _shortened(_screen_of(step, environment)) for step in steps)


def _screen_of(step: Step, environment: dict[str, str]) -> list[str]:
    """Runs one command at a terminal of its own; the lines that a person sees who scrolls up."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
    words = [sys.executable, "-m", "dsr", *shlex.split(step.command)[1:]]
    # Nobody answers where the cursor is, and the conversation would wait.
    environment = {**environment, "TERM": "xterm", "PYTHONPATH": str(ROOT), "PROMPT_TOOLKIT_NO_CPR": "1"}
    terminal = Terminal(COLUMNS, ROWS)
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            ended = _converse(ours, terminal, list(step.typed))
        finally:
            os.close(ours)
            if sys.exc_info()[0] is not None:
                process.kill()
        if not ended:
            process.kill()
    if not ended or process.returncode:
        told = f"exit code {process.returncode}" if ended else f"not finished after {_MOST_SECONDS:.0f} s"
        raise SystemExit(f"{step.command}: {told}:\n" + "\n".join(terminal.text))
    return terminal.text


def _converse(end: int, terminal: Terminal, typed: list[str]) -> bool:
    """Types each line when the prompt waits for it; whether the command ended in time."""
    last, held = time.monotonic() + _MOST_SECONDS, b""
    while time.monotonic() < last:
        if not select.select([end], [], [], _QUIET)[0]:
            if typed and terminal.screen[-1].startswith(PROMPT):
                os.write(end, typed.pop(0).encode() + b"\r")
            continue
        try:
            output = os.read(end, 65536)
        except OSError:  # the command closed the terminal
            return True
        if not output:
            return True
        held = _shown(held + output, terminal)
    return False


def _shown(output: bytes, terminal: Terminal) -> bytes:
    """Shows the output; returns the bytes of a sequence or a character that is not complete."""
    at = output.rfind(b"\x1b")
    if at >= 0 and not re.search(rb"\x1b(\[[\d;?]*[A-Za-z]|\][^\x07]*\x07|[=>])", output[at:]):
        output, rest = output[:at], output[at:]
    else:
        rest = b""
    for cut in range(4):
        try:
            text = output[: len(output) - cut].decode()
        except UnicodeDecodeError:
            continue
        terminal.write(_UNSEEN.sub("", text))
        return output[len(output) - cut :] + rest
    raise SystemExit(f"this is no UTF-8: {output!r}")


def _shortened(lines: list[str]) -> str:
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) > _LONGEST:
        left_out = f"[... {len(lines) - 2 * _KEPT} lines ...]"
        lines = [*lines[:_KEPT], left_out, *lines[-_KEPT:]]
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, HubServer() as hub:
        hub.add("demo/nano-GGUF", {"nano-Q8_0.gguf": (ROOT / "dsr" / "data" / "nano.gguf").read_bytes()})
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "HF_", "COLUMNS"))}
        here = {"HOME": folder, "DSR_HOME": f"{folder}/dsr", "HF_HOME": f"{folder}/hf", "HF_ENDPOINT": hub.url}
        text = recorded(STEPS, {**kept, **here}).replace(folder, "/home/you")
    replace(PAGE, "recording", f"```\n{text}```")


if __name__ == "__main__":
    main()
