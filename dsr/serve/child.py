"""How the server starts other processes of dsr."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGES = Path(__file__).resolve().parents[2]  # where the process finds dsr, no matter from which folder dsr runs
_KEY = "DSR_API_KEY"


def child_command(module: str, *arguments: str) -> list[str]:
    """Runs a module of dsr. `-P`: no module comes from the folder in which dsr runs."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """This environment without the key of the server, which no other process needs."""
    paths = os.pathsep.join(filter(None, (str(_PACKAGES), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if name != _KEY}
    return {**kept, "PYTHONPATH": paths}
