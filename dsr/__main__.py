"""The console script, and `python -m dsr`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    if "_DSR_COMPLETE" in os.environ:  # a shell asks, at every press of Tab
        from dsr.completion.shells import main as complete

        complete()
        return
    try:
        from dsr.cli import main as run  # takes a moment, in which Ctrl-C must not show a traceback

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
