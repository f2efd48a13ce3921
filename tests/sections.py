"""Parts of a document that a command writes: a comment before and one behind each tells its name.

    python tests/sections.py DOCUMENT NAME FILE

puts FILE in place of the part called NAME, and leaves the rest of the document alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def replaced(document: str, name: str, text: str) -> str:
    """The document with `text` as the part called `name`; a new part comes last."""
    begin, end = f"<!-- made: {name} -->", f"<!-- end: {name} -->"
    part = f"{begin}\n\n{text.strip()}\n\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(document):
        return pattern.sub(lambda _: part, document)
    return f"{document.rstrip()}\n\n{part}\n"


def replace(path: Path, name: str, text: str) -> None:
    document = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(replaced(document, name, text), encoding="utf-8")


if __name__ == "__main__":
    replace(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text(encoding="utf-8"))
