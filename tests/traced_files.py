"""Lists the files of dsr in which a function ran during a command: how far a reader has to follow it.

    python tests/traced_files.py chat --vote 8 --temp 1 --seed 1 -t 1 "What is 347 + 586?"

Threads count, child processes do not. Class bodies and module bodies are not functions.
"""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(f"{ROOT}/{name}/" for name in ("dsr", "quant", "runtime", "prompts"))


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from dsr.cli import main as dsr

    ran: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(PACKAGES):
            ran.add(code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        dsr()
    finally:
        sys.setprofile(None)
        files = sorted(str(Path(file).relative_to(ROOT)) for file in ran)
        sys.stderr.write("\n".join([*files, f"{len(files)} files", ""]))


if __name__ == "__main__":
    main()
