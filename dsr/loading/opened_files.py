"""Notices that the name of an open model file means another file now, because somebody replaced or removed it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class OpenedFiles:
    """The files of an open model. Make it before they are opened. An open file stays readable without its name."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._known = {path: _facts(path) for path in paths}
        self._told: set[Path] = set()

    def note(self) -> str | None:
        """One line about a file that has lost its name since; None if all have theirs, or it was told before."""
        lost = [path for path, known in self._known.items() if known is not None and _is_another(path, known)]
        new = [path for path in lost if path not in self._told]
        if not new:
            return None
        self._told.update(lost)
        what = "is another file now" if new[0].exists() else "was moved or deleted"
        return f"{new[0]} {what}; answers go on with the file that was opened, until you start dsr again"


def _is_another(path: Path, known: os.stat_result) -> bool:
    """A file with the same size and time counts as the same: some file systems give a file new numbers."""
    found = _facts(path)
    if found is None:
        return True
    same_number = (found.st_dev, found.st_ino) == (known.st_dev, known.st_ino)
    return not same_number and (found.st_size, found.st_mtime_ns) != (known.st_size, known.st_mtime_ns)


def _facts(path: Path) -> os.stat_result | None:
    """None if nothing has this name."""
    try:
        return path.stat()
    except OSError:
        return None
