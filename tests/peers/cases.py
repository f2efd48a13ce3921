"""Runs recorded cases against a dsr program: every `check.sh` of FOLDER, which exits 0 where dsr does right.

    python tests/peers/cases.py FOLDER [--dsr PROGRAM] [--except NAME,...]

Prints `ok` or `FAIL`, the seconds and the name of each case, then a tally. The exit code is 1 where a case failed,
2 where FOLDER has none. A case that takes longer than `--timeout` seconds counts as failed and is ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def passes(check: Path, dsr: str, timeout: float) -> tuple[bool, str]:
    """Whether `check` exits 0, and the last line that it printed."""
    process = subprocess.Popen(
        ["bash", str(check), dsr],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a group of its own, so that a case that hangs ends with all it started
    )
    try:
        output, _ = process.communicate(timeout=timeout)
        said = output.strip().rpartition("\n")[2]
    except subprocess.TimeoutExpired:
        said = f"still running after {timeout:g} s"
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == 0, said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dsr", default=str(Path(sys.executable).with_name("dsr")), help="default: of this Python")
    parser.add_argument("--except", dest="left_out", default="", help="names of cases to leave out, with commas")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for each case; default: 600")
    options = parser.parse_args()
    left_out = set(options.left_out.split(",")) - {""}
    checks = {check.parent.name: check for check in sorted(options.folder.glob("*/check.sh"))}
    if not checks or left_out - checks.keys():
        wrong = f"no case {', '.join(sorted(left_out - checks.keys()))}" if checks else "no */check.sh"
        print(f"{wrong} in {options.folder}", file=sys.stderr)
        return 2
    failed = []
    for name, check in checks.items():
        if name in left_out:
            continue
        begin = time.monotonic()
        passed, said = passes(check.resolve(), options.dsr, options.timeout)
        print(
            f"{'ok  ' if passed else 'FAIL'} {time.monotonic() - begin:6.1f} s  {name}"
            + ("" if passed else f": {said}")
        )
        sys.stdout.flush()
        failed += [] if passed else [name]
    tried = len(checks) - len(left_out)
    print(f"{tried - len(failed)} of {tried} right" + (f"; {len(left_out)} left out" if left_out else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
