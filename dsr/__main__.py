"""The console script, and `python -m dsr`."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from dsr.cli import main as run  # takes a moment, in which Ctrl-C must not show a traceback

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
