"""Files that a question names: '@notes.txt' adds the file, and stays in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runtime.base.files import expanded

# At the beginning of a word, so that an address (a@b.org) is none. A name with spaces stands in quotation marks.
_MENTION = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|([^\s"]+))')
_AFTER = ".,;:!?)]}'\""  # at the end of a sentence, not of a name


@dataclass(frozen=True, slots=True)
class Mentions:
    """The files of a question, and the words that look like one and are none on this disk."""

    files: tuple[Path, ...]
    missing: tuple[str, ...]


def mentions(question: str) -> Mentions:
    """The mentions of a question, each file once. Reads only whether the files are there."""
    files: dict[Path, None] = {}
    missing: list[str] = []
    for found in _MENTION.finditer(question):
        names = (found[1],) if found[1] else (found[2], found[2].rstrip(_AFTER))
        there = next((path for name in names if name and _is_file(path := expanded(name))), None)
        if there is not None:
            files[there] = None
        elif found[1] or "/" in found[2] or "." in found[2].strip("."):
            missing.append(names[-1])
    return Mentions(tuple(files), tuple(missing))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # longer than the system allows
        return False
