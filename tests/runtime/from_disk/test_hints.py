"""Every error that a person meets while a model runs from the disk says what to type or do next."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FILES = [
    *(ROOT / "runtime" / "from_disk").glob("*.py"),
    *(ROOT / "runtime" / "llama").glob("streamed_*.py"),
    ROOT / "runtime" / "llama" / "reserved_buffer.py",
    ROOT / "dsr" / "loading" / "from_disk.py",
]
WITHOUT = {"Aborted", "ValueError"}  # a person stopped it, or a caller has a bug


def test_errors_have_hints() -> None:
    lacking = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            made = node.exc
            name = made.func.id if isinstance(made.func, ast.Name) else ""
            is_class = name[:1].isupper() and name not in WITHOUT
            if is_class and not any(each.arg == "hint" for each in made.keywords):
                lacking.append(f"{file.name}:{node.lineno} {name}")
    assert not lacking
