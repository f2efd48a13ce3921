"""Resident memory of one `dsr chat` over many turns at a terminal, with a context that overflows again and again.

    python tests/peers/turns.py [MODEL] [--turns N] [--ctx-size N] [--growth MIB] [-- OPTIONS OF dsr chat]

Exits with 1 if memory after the last turn is more than `--growth` MiB above that after the first 50 turns.
"""

from __future__ import annotations

import argparse
import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST = 50  # turns until everything has its place: the context is full, every piece of code ran
READY, LEFT = b"\x1b[?2004h", b"\x1b[?2004l"  # the line editor turns pasting in brackets on and off
TASKS = (
    "What is {n} + {m}?",
    "What day is {n} days after Monday?",
    "Write 'igloo' backwards.",
    "Is {n} more than {m}?",
)


def resident(process: int) -> float:
    """MiB of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the process has no memory any more")


class Screen:
    """What a program at a terminal shows."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._shown = b""

    def until(self, mark: bytes) -> bytes:
        """Everything up to the mark that was not given yet."""
        while mark not in self._shown:
            self._shown += os.read(self._terminal, 65536)
        before, _, self._shown = self._shown.partition(mark)
        return before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--ctx-size", type=int, default=1024)
    parser.add_argument("--growth", type=float, default=8.0)
    parser.add_argument("options", nargs="*")
    asked = parser.parse_args()
    ours, theirs = pty.openpty()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "DSR_HOME": home, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
        environment["PROMPT_TOOLKIT_NO_CPR"] = "1"  # nobody answers where the cursor is, and it would wait
        command = [sys.executable, "-m", "dsr", "chat", asked.model, "-t", "1", "-n", "40", "--temp", "0", "--no-think"]
        command += ["--ctx-size", str(asked.ctx_size), "--on-full", "forget", *asked.options]
        with subprocess.Popen(
            command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as process:
            os.close(theirs)
            screen = Screen(ours)
            screen.until(READY)
            after, forgotten = {0: resident(process.pid)}, 0
            print(f"{asked.model}, context of {asked.ctx_size}: {after[0]:.1f} MiB before the first turn")
            for turn in range(1, asked.turns + 1):
                question = TASKS[turn % len(TASKS)].format(n=turn, m=1000 - turn)
                os.write(ours, f"{question}\r".encode())
                screen.until(LEFT)
                forgotten += b"forgot" in screen.until(READY)
                if turn % FIRST == 0 or turn == asked.turns:
                    after[turn] = resident(process.pid)
                    print(f"turn {turn:4}: {after[turn]:.1f} MiB; {forgotten} turns forgot something", flush=True)
            os.write(ours, b"\x04")
            try:
                while os.read(ours, 65536):
                    pass
            except OSError:  # the terminal is closed at the other end
                pass
            code = process.wait()
    grown = after[asked.turns] - after[min(FIRST, asked.turns)]
    print(
        f"grown by {grown:+.1f} MiB since turn {min(FIRST, asked.turns)}, allowed are {asked.growth}; exit code {code}"
    )
    return 1 if code or grown > asked.growth else 0


if __name__ == "__main__":
    sys.exit(main())
