"""Lines of a label and a value, as `dsr show` and `dsr doctor` print them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from dsr.ui.console import is_terminal
from dsr.ui.text import wrap_words

_NARROWEST = 20


def labelled(labels: Sequence[str], value: str, widths: Sequence[int], columns: int | None) -> list[str]:
    """The labels padded to `widths`, then the value, wrapped to `columns` and indented; not wrapped for None."""
    start = "".join(label.ljust(width) + "  " for label, width in zip(labels, widths, strict=True))
    room = None if columns is None else max(_NARROWEST, columns - len(start))
    folded = wrap_words(value, room) if room else [value]
    return [(start if number == 0 else " " * len(start)) + part for number, part in enumerate(folded or [""])]


def terminal_columns() -> int | None:
    """The width of the terminal; None when stdout is no terminal, so that lines are not wrapped."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
