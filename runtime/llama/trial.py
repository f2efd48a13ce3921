"""The first opening of a file, in a process that may die.

A structure that passes every check in `runtime.gguf.reader` can still make native code abort. The child builds
everything but loads no weights, so this takes a fraction of a second whatever the model's size.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from runtime.base.errors import Aborted, BadModelFile, DoesNotFit, EngineFailed

# Building a model of a thousand layers takes seconds; a file that keeps the engine busy longer is not a model.
_SECONDS = 60

_MTP = "mtp"  # tells the child to open the second context as well


def try_in_child(path: Path) -> None:
    """Open `path` in a child. Raises EngineFailed with the engine's reason, BadModelFile if the child died,
    DoesNotFit if the system killed it, Aborted."""
    _try(path)


def try_mtp_in_child(path: Path) -> None:
    """Open `path` with the layers that predict ahead in a child. Raises as `try_in_child` does."""
    _try(path, _MTP)


def _try(path: Path, *words: str) -> None:
    command = [sys.executable, "-c", "from runtime.llama.trial import main; main()", str(path.absolute()), *words]
    root = str(Path(__file__).resolve().parents[2])
    try:
        child = subprocess.run(
            command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise BadModelFile(path, f"the engine was still busy after {_SECONDS} s of opening it") from None
    if child.returncode == 0:
        return
    said = child.stderr.decode("utf-8", "replace").strip().splitlines()
    if child.returncode == EngineFailed.exit_code:
        raise EngineFailed(said[-1] if said else f"{path}: the engine cannot open it")
    if child.returncode == -signal.SIGINT:
        # Ctrl-C reaches every process at the terminal.
        raise Aborted("stopped while opening")
    if child.returncode == -signal.SIGKILL:
        raise DoesNotFit(f"{path}: opening it was killed by the system, which is what happens when memory runs out")
    if child.returncode < 0:
        name = _signal_name(-child.returncode)
        raise BadModelFile(path, f"opening it crashes the engine ({name}): the file is damaged or hostile")
    raise BadModelFile(path, f"opening it failed: {said[-1] if said else child.returncode}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def main() -> None:
    """The child."""
    try:
        # Importing the engine fails in the same way when it is not the release that is pinned.
        from runtime.llama import open_without_weights

        open_without_weights(Path(sys.argv[1]), mtp=_MTP in sys.argv[2:])
    except EngineFailed as error:
        sys.stderr.write(error.message + "\n")
        sys.exit(error.exit_code)
