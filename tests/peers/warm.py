"""An interpreter of another environment that imports its heavy modules once, and forks for each run of a script."""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_SERVE = """
import importlib, json, os, sys, traceback
script = compile(sys.argv[1], "script", "exec")
for name in sys.argv[2:]:
    importlib.import_module(name)
for line in sys.stdin:
    arguments, said = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    out, status = os.open(said, os.O_WRONLY | os.O_CREAT), 0
    os.dup2(out, 1), os.dup2(out, 2)
    sys.argv = ["-c", *arguments]
    try:
        exec(script, {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else end.code is not None
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(int(status))
"""


class Warm:
    """`python` runs `script` for each set of arguments, as `python -c script` would, in a process of its own.

    Raises OSError where the interpreter cannot import the modules."""

    def __init__(self, python: str, script: str, modules: tuple[str, ...]) -> None:
        command = [python, "-c", _SERVE, script, *modules]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments: str | Path) -> tuple[int, str]:
        """The exit status, and what the script wrote."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            said = Path(folder) / "said"
            self._process.stdin.write(json.dumps([[str(each) for each in arguments], str(said)]) + "\n")
            self._process.stdin.flush()
            status = self._process.stdout.readline()
            if not status:
                raise OSError(f"{self._process.args[0]} does not start")  # type: ignore[index]
            return int(status), said.read_text(errors="replace")


@cache
def warm(python: str, script: str, *modules: str) -> Warm:
    """The one interpreter of this process for this script. It ends with this process."""
    return Warm(python, script, modules)
