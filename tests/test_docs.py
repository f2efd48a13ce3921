"""What the documents promise is what the program does."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dsr import __version__
from dsr.store.settings import Settings
from tests import readme

ROOT = Path(__file__).resolve().parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_generated_parts_of_the_readme_are_fresh() -> None:
    before = text_of("README.md")
    assert readme.filled(before) == before, "run `make docs`"


def test_a_stale_help_text_would_be_noticed() -> None:
    stale = "<!-- help: doctor -->\n```\nold words\n```\n<!-- end -->"
    assert "old words" not in readme.filled(stale)


@pytest.mark.parametrize("line", re.findall(r"^ {4}\$ (dsr .*)$", text_of("README.md"), re.MULTILINE))
def test_every_command_of_the_readme_parses(line: str) -> None:
    import typer

    from dsr.cli import app

    words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    command.make_context(words[0], words[1:], resilient_parsing=False)


def test_every_dependency_has_its_reason_in_the_readme() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    names = {re.split(r"[=<>]", dependency)[0] for dependency in project["dependencies"]}
    table = text_of("README.md").split("## What it stands on")[1]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    explained = {name.split(" ")[0] for row in rows for name in row.split(", ")} - {"dependency", "---"}
    assert explained == names


def test_every_setting_is_in_the_readme() -> None:
    table = text_of("README.md").split("## Settings")[1].split("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(Settings.__dataclass_fields__)


def test_the_changelog_tells_of_this_version() -> None:
    assert f"\n## {__version__}\n" in text_of("CHANGELOG.md")


def test_the_engine_is_pinned_to_one_release_everywhere() -> None:
    [pin] = re.findall(r"llama-cpp-python==([\d.]+)", text_of("pyproject.toml"))
    assert f"ENGINE      := {pin}\n" in text_of("Makefile")
    assert f"llama-cpp-python (== {pin})" in text_of("README.md")
    tree = ast.parse(text_of("runtime/llama/native.py"))
    [constant] = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "ENGINE_VERSION"
        and isinstance(node.value, ast.Constant)
    ]
    assert constant == pin


def test_our_table_of_tensor_types_is_that_of_gguf() -> None:
    import gguf

    from runtime.gguf.types import BY_NUMBER

    theirs = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {number: (kind.name, kind.block, kind.width) for number, kind in BY_NUMBER.items()}
    # gguf counts two floats for Q8_1 where ggml-common.h has two halves; no file stores that type.
    assert theirs.pop(9) == ("Q8_1", 32, 40)
    assert ours[9] == ("Q8_1", 32, 36)
    assert {number: ours[number] for number in theirs} == theirs


def test_the_readme_s_measured_rows_are_the_report_s() -> None:
    section = text_of("README.md").split("#### All of it on one page")[1].split("<!-- help")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 4
    assert set(rows) <= set(text_of("docs/report.md").splitlines())
    for picture in re.findall(r"!\[[^]]*\]\((docs/[^)]*)\)", section):
        assert (ROOT / picture).is_file()
