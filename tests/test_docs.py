"""What the documents promise is what the program does."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from dsr import __version__
from dsr.store import settings
from runtime.base import errors
from tests import reference, rooms

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
# Made by a bench; the text is data.
MEASURED = ("docs/results.md", "docs/report.md", "docs/report-smollm2.md", "docs/models.md", "docs/log.md")
WRITTEN = tuple(page for page in PAGES if page not in MEASURED)
_COMMAND = re.compile(r"^ {4}\$ (dsr .*)$", re.MULTILINE)
_BARE_COMMAND = re.compile(r"^ {4}(?:[a-z -]+ \| )?(dsr [^|>#\n]*)", re.MULTILINE)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- generated pages -----------------------------------------------------------------------------------------------


def test_the_help_of_every_command_is_fresh() -> None:
    assert text_of("docs/reference/commands.md") == reference.commands_page(), "run `make docs`"


def test_the_list_of_classes_is_fresh() -> None:
    assert text_of("docs/reference/classes.md") == reference.classes_page(), "run `python tests/reference.py`"


def test_the_transcripts_are_fresh() -> None:
    for page in reference.PAGES:
        before = page.read_text(encoding="utf-8")
        assert reference.filled(before) == before, f"{page.name}: run `make docs`"


def test_a_stale_transcript_would_be_noticed() -> None:
    stale = "<!-- transcript -->\n```\n$ dsr --version\ndsr 0.0.0\n```\n<!-- end -->"
    assert f"dsr {__version__}\n" in reference.filled(stale)


def test_the_map_of_the_rooms_is_fresh() -> None:
    assert text_of("docs/architecture.svg") == rooms.picture(rooms.our_sources()), "run `make docs`"


@pytest.mark.parametrize("runs", [each for each in reference.RUNS if each.quick], ids=lambda runs: runs.schema)
def test_json_has_the_documented_fields(runs: reference.Runs, tmp_path: Path) -> None:
    documented = reference.documented(text_of("docs/reference/json.md"))[runs.schema]
    known = reference.notes()
    for command in runs.commands:
        body = json.loads(output(shlex.split(command)))
        assert body["schema"] == runs.schema
        for path, kinds in reference.shape_of(body, known).items():
            if reference.told_once(path, known):
                continue
            assert path in documented, f"{command}: run `python tests/reference.py --json`"
            told = documented[path]
            assert all(kind in told for kind in kinds - {"list", "integer"}), (command, path, kinds, told)


def test_the_meanings_of_json_fields_are_fresh() -> None:
    page = text_of("docs/reference/json.md")
    assert page == reference.with_new_meanings(page), "run `make docs`"


def test_no_field_is_documented_as_what_one_run_lacked() -> None:
    rows = reference.documented(text_of("docs/reference/json.md"))
    bare = [
        f"{schema} {path}" for schema, each in rows.items() for path, kinds in each.items() if kinds in ("null", "list")
    ]
    assert not bare, "json.toml says the types that no run shows: [types]"


def test_every_schema_of_the_program_is_documented() -> None:
    documented = reference.documented(text_of("docs/reference/json.md")).keys()
    shown = set()
    for path in (ROOT / "dsr").rglob("*.py"):
        shown |= set(re.findall(r"\"(dsr\.[a-z.-]+/\d+)\"", path.read_text(encoding="utf-8")))
    others = {"dsr.conversation/1", "dsr.machine/1", "dsr.allowed-tools/1"}  # files that dsr reads
    assert shown - others <= documented


def output(arguments: list[str]) -> str:
    from typer.testing import CliRunner

    from dsr.cli import app

    return CliRunner().invoke(app, arguments).stdout


# --- links and commands --------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    for page in WRITTEN:
        text = text_of(page)
        yield from ((page, line) for line in _COMMAND.findall(text))
        yield from ((page, line.strip()) for line in _BARE_COMMAND.findall(text))


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_every_command_of_the_pages_parses(page: str, line: str) -> None:
    import typer

    from dsr.cli import app

    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    command.make_context(line, words, resilient_parsing=False)


def test_the_commands_of_the_pages_are_found() -> None:
    found = {line for _, line in commands()}
    assert {'dsr chat "What is 12 * 15?"', "dsr pull deepseek-r1:7b --dry-run --json"} <= found
    assert len(found) > 80


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(<?([^)>]+)>?\)", text_of(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / name if name else ROOT / page
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{page}: {target}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, open_ends = set(), [ROOT / "README.md"]
    while open_ends:
        page = open_ends.pop()
        reached.add(page)
        for target in re.findall(r"\]\(<?([^)>#]+\.md)", page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            if "://" not in target and linked not in reached:
                open_ends.append(linked)
    assert {ROOT / page for page in PAGES} <= reached


# --- the map of the code -------------------------------------------------------------------------------------------


def test_the_paths_of_the_architecture_exist() -> None:
    """Every `folder/`, `folder/file.py` and `folder/file.py:name`; a name is a class, a function or a constant."""
    text = text_of("docs/architecture.md")
    path = r"((?:dsr|quant|runtime|prompts|tests)/[\w./-]*)"
    found = [each for each in re.findall(rf"`{path}(?::([\w.]+))?`", text) if "NAME" not in each[0]]
    assert len(found) > 80
    missing = [
        f"{path}:{name}" if name else path
        for path, name in found
        if not (ROOT / path).exists() or (name and name not in names_in(ROOT / path))
    ]
    assert not missing, f"mend docs/architecture.md: {', '.join(missing)}"


def names_in(path: Path) -> set[str]:
    """What a module defines: its classes with their methods, functions and constants."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{node.name}.")
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    if path.suffix == ".py":
        collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


# They take nothing from a user, a file or another machine: constants, libraries, our own structures and callbacks.
_HARMLESS_CALLS = {
    "llama_backend_init", "llama_numa_init", "llama_log_set", "llama_log_callback", "llama_print_system_info",
    "llama_supports_rpc", "llama_supports_gpu_offload", "llama_max_devices", "llama_batch", "llama_model_params",
    "llama_context_params", "llama_sampler_chain_params", "llama_token_data_array", "llama_token_data_p",
    "llama_progress_callback", "ggml_abort_callback", "ggml_backend_load_all", "ggml_tensor_overhead",
    "ggml_backend_cpu_buffer_type", "ggml_backend_buft_name", "ggml_quantize_init",
}  # fmt: skip


def test_every_native_call_that_meets_data_has_its_bound() -> None:
    text = text_of("docs/architecture.md")
    section = text[text.index("## What native code meets") : text.index("## Add a strategy")]
    named = re.findall(r"`((?:llama|ggml)_[a-z_]+\*?)`", section)
    called = {
        node.attr
        for path in (ROOT / "runtime" / "llama").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and re.fullmatch(r"(?:llama|ggml)_[a-z_]+", node.attr)
    }
    missing = {each for each in called - _HARMLESS_CALLS if not any(fnmatch(each, name) for name in named)}
    assert len(called) > 40
    assert not missing, f"mend docs/architecture.md: {missing}"
    assert not [name for name in named if "*" not in name and name not in called | {"llama_model_quantize"}]


def test_the_map_has_every_room() -> None:
    text = text_of("docs/architecture.md")
    graph = rooms.rooms(rooms.our_sources())
    places = [room.replace(".", "/") for room in graph if "." in room and room != "dsr.__main__"]
    missing = [place for place in places if f"`{place}/`" not in text and f"`{place}.py`" not in text]
    assert not missing, f"add to the rooms of docs/architecture.md: {', '.join(missing)}"


def test_a_room_stands_above_those_it_imports() -> None:
    graph = rooms.rooms({
        "dsr.a.x": "from dsr.b import y\nfrom dsr.c.z import name",
        "dsr.b.y": "def f():\n    import dsr.c.z",
        "dsr.c.z": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import dsr.a.x",
    })  # fmt: skip
    assert graph == {"dsr.a": {"dsr.b", "dsr.c"}, "dsr.b": {"dsr.c"}, "dsr.c": set()}
    assert rooms.levels(graph) == {"dsr.a": 2, "dsr.b": 1, "dsr.c": 0}
    assert rooms.arrows(graph) == [("dsr.a", "dsr.b"), ("dsr.b", "dsr.c")]


# --- facts that stand twice ----------------------------------------------------------------------------------------


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[=<>]", dependency)[0] for dependency in wanted}
    table = text_of("docs/architecture.md").split("## Dependencies")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    explained = {name.split(" ")[0] for row in rows for name in row.split(", ")} - {"dependency", "---"}
    assert explained == names


def test_every_setting_is_in_the_reference() -> None:
    table = text_of("docs/reference/settings.md").split("## Settings")[1].split("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(settings.KINDS)


def test_every_exit_code_is_in_the_reference() -> None:
    codes = {each.exit_code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_code")}
    table = re.findall(r"^\| (\d+) \|", text_of("docs/reference/exit-codes.md"), re.MULTILINE)
    assert {int(code) for code in table} == codes | {0, 129, 143}  # dsr/ui/interrupts.py


def test_every_command_of_a_conversation_is_in_the_reference() -> None:
    in_code = set(re.findall(r"^ +\"(/[a-z-]+)\": Command\(", text_of("dsr/chat/repl.py"), re.MULTILINE))
    in_page = set(re.findall(r"`(/[a-z-]+)", text_of("docs/reference/conversation.md")))
    assert len(in_code) > 10
    assert in_page == in_code


def test_the_changelog_tells_of_this_version() -> None:
    assert f"\n## {__version__}\n" in text_of("CHANGELOG.md")


def test_the_engine_is_pinned_to_one_release_everywhere() -> None:
    [pin] = re.findall(r"llama-cpp-python==([\d.]+)", text_of("pyproject.toml"))
    assert f"ENGINE      := {pin}\n" in text_of("Makefile")
    assert f"(== {pin})" in text_of("README.md")
    assert f"llama-cpp-python (== {pin})" in text_of("docs/architecture.md")
    tree = ast.parse(text_of("runtime/gguf/engine_lists.py"))
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
    section = text_of("README.md").split("## What a smaller file loses")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 4
    assert set(rows) <= set(text_of("docs/report.md").splitlines())


@pytest.mark.parametrize("page", [page for page in WRITTEN if page != "docs/experts.md"])
def test_sentences_are_short(page: str) -> None:
    """At most 25 words (and a little more where a sentence names files or options)."""
    long = [sentence for sentence in sentences(text_of(page)) if len(sentence.split()) > 25]
    assert long == []


def sentences(text: str) -> list[str]:
    """The sentences of a page: without code blocks, tables and generated parts."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    ", "#", "!", "<!--"))]
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d+\. )", "\n".join(lines)):
        found += re.split(r"(?<=[.!?:])\s+", " ".join(paragraph.split()))
    return [sentence for sentence in found if sentence]
