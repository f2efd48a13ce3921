"""Writes docs/reference/ and the transcripts of the pages from the program: `python tests/reference.py` (`make docs`).

It also writes dsr/data/completions.json, from which shells complete.

`commands.md` has what `dsr NAME --help` prints at 80 columns, for every command. `classes.md` lists the families of
`quant/convert/families/`. `json.md` has the fields of every `--json` object: names and types come from real runs with
the embedded model, meanings from `json.toml`. The runs take minutes, so only `python tests/reference.py --json` repeats
them; `--json dsr.show/1` repeats those of one schema. In a page, the text between `<!-- transcript -->` and
`<!-- end -->` is what the command in its first line prints.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import api_page, completion_table  # noqa: E402

REFERENCE = ROOT / "docs" / "reference"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md")))
_TRANSCRIPT = re.compile(r"<!-- transcript -->\n(.*?)<!-- end -->", re.DOTALL)


# --- transcripts ---------------------------------------------------------------------------------------------------


def filled(text: str) -> str:
    """The page with its transcripts made from the program."""
    return _TRANSCRIPT.sub(_transcript, text)


def _transcript(match: re.Match[str]) -> str:
    [command] = re.findall(r"^\$ dsr (.*)$", match[1], re.MULTILINE)
    with tempfile.TemporaryDirectory() as home:
        shown = _run(shlex.split(command), Path(home), stderr=subprocess.STDOUT).stdout
    return f"<!-- transcript -->\n```\n$ dsr {command}\n{shown}```\n<!-- end -->"


def _run(arguments: list[str], home: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `dsr` as at a terminal of 80 columns, with folders of its own under `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "HF_"))}
    environment = {**kept, "COLUMNS": "80", "NO_COLOR": "1", "DSR_HOME": str(home), "HF_HOME": str(home / "hf")}
    environment |= more.pop("environment", {})
    return subprocess.run(
        [sys.executable, "-m", "dsr", *arguments], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True, **{"check": True, **more},
    )  # fmt: skip


# --- commands.md ---------------------------------------------------------------------------------------------------

_COMMANDS_HEAD = """# Commands

Made by `make docs` from the program itself: this is what `dsr NAME --help` prints.
"""


def commands_page() -> str:
    """The help of every command, one section each."""
    parts = [f"## {name}\n\n```\n{text}\n```\n" for name, text in _helps()]
    return "\n".join([_COMMANDS_HEAD, *parts])


def _helps() -> Iterator[tuple[str, str]]:
    from dsr.cli import app

    command = typer.main.get_command(app)
    yield from _helps_below(command, None, "dsr")


def _helps_below(command: Any, parent: Any, name: str) -> Iterator[tuple[str, str]]:
    context = command.context_class(
        command, info_name=name, parent=parent, terminal_width=78, **command.context_settings
    )
    yield context.command_path, command.get_help(context).rstrip()
    for each, below in getattr(command, "commands", {}).items():
        yield from _helps_below(below, context, each)


# --- classes.md ----------------------------------------------------------------------------------------------------


def classes_page() -> str:
    """The classes of models that can be converted: a row for each family."""
    from quant.convert import families
    from quant.convert.architectures import CLASSES

    modules = sorted(
        (module for name, module in sys.modules.items() if name.startswith(f"{families.__name__}.")),
        key=lambda module: module.__name__,
    )
    listed = [(module, family) for module in modules for family in getattr(module, "FAMILIES", ())]
    rows = []
    for module, family in listed:
        about = " ".join(str(module.__doc__).split()).replace("|", "/") if family is module.FAMILIES[0] else ""
        mtp = "kept with `--keep-mtp`" if family.has_mtp else ""
        rows.append(f"| {about} | {', '.join(family.classes)} | {family.architecture} | {mtp} |")
    return "\n".join([
        "# Classes that can be converted",
        "",
        f"Made by `make docs` from `quant/convert/families/`: {len(CLASSES)} classes, of "
        f"{len({family.architecture for _, family in listed})} architectures. A class is what `config.json` has under",
        "`architectures`. Of a multimodal checkpoint, dsr converts the language model.",
        "",
        "[Measured](../models.md) has what each of them was compared with.",
        "",
        "| models | class | architecture in GGUF | MTP layers |",
        "|---|---|---|---|",
        *rows,
        "",
    ])  # fmt: skip


# --- json.md -------------------------------------------------------------------------------------------------------

Shape = dict[str, set[str]]  # a field's path, as in rows[].size -> the types it was seen with


@dataclass(frozen=True, slots=True)
class Runs:
    """The commands that print objects of one schema, in the order in which they can be run."""

    schema: str
    commands: tuple[str, ...]
    quick: bool = False  # run by the tests, too


# {w} is a folder for files. Later commands use what earlier ones made.
RUNS = (
    Runs("dsr.chat/1", (
        'chat --json --temp 0 --logprobs 1 "What is 347 + 586?"',
        'chat --json --temp 1 --seed 1 --vote 4 "What is 347 + 586?"',
        'chat --json --temp 0 --resume --ctx-size 40 --max-tokens 8 --no-think "What is 12 + 5?"',
        'chat --json --temp 0 --strategy evidence -f LICENSE --max-tokens 8 "Who has the copyright?"',
    ), quick=True),
    Runs("dsr.chat.batch/1", (
        "chat nano --quiet --temp 0 --logprobs 1 --batch tests/dsr/chat/batch/question.jsonl",
        "chat nano --quiet --temp 1 --vote 4 --batch tests/dsr/chat/batch/question.jsonl",
    ), quick=True),
    Runs("dsr.chat.strategies/1", ("chat --json --list-strategies",), quick=True),
    Runs("dsr.event/1", (
        "quantize --jsonl nano {w}/event.gguf --recipe q4_0 --allow-requantize",
        "quantize --jsonl nano {w}/event.gguf --recipe q4_0 --allow-requantize --force --measure LICENSE",
    )),
    Runs("dsr.error/1", ("show --json no-such:1b",), quick=True),
    Runs("dsr.list/1", ("list --json",), quick=True),
    Runs("dsr.list.catalog/1", ("list --json --catalog", "list --json --fits --family qwen3"), quick=True),
    Runs("dsr.list.from/1", ("list --json --from ollama",)),
    Runs("dsr.config.set/1", ("config set --json threads 2", "config set --json log true",
                              "config set --json thinking show", "config set --json temperature 0.5")),
    Runs("dsr.config.list/1", ("config list --json",), quick=True),
    Runs("dsr.config.get/1", ("config get --json threads", "config get --json log", "config get --json model",
                              "config get --json thinking", "config get --json temperature"), quick=True),
    Runs("dsr.config.set/1", ("config unset --json threads", "config unset --json log",
                              "config unset --json thinking", "config unset --json temperature")),
    Runs("dsr.config.path/1", ("config path --json",), quick=True),
    Runs("dsr.alias.set/1", ("alias set --json mine nano",), quick=True),
    Runs("dsr.alias.list/1", ("alias list --json",), quick=True),
    Runs("dsr.alias.show/1", ("alias show --json mine",)),
    Runs("dsr.alias.remove/1", ("alias remove --json mine",)),
    Runs("dsr.show/1", ("show --json nano",), quick=True),
    Runs("dsr.show.tensors/1", ("show --json nano --tensors",), quick=True),
    Runs("dsr.show.metadata/1", ("show --json nano --metadata",), quick=True),
    Runs("dsr.show.template/1", ("show --json nano --template",), quick=True),
    Runs("dsr.plan/1", ("plan --json nano", "plan --json nano --machine tests/dsr/plan/small-machine.json")),
    Runs("dsr.plan.catalog/1", ("plan --json",)),
    Runs("dsr.doctor/1", ("doctor --json",)),
    Runs("dsr.quantize/1", (
        "quantize --json nano --dry-run",
        "quantize --json nano {w}/q4.gguf --allow-requantize --measure LICENSE",
    )),
    Runs("dsr.quantize.recipes/1", ("quantize --json --list-recipes",), quick=True),
    Runs("dsr.imatrix/1", ("imatrix --json nano --chunks 1 -o {w}/nano.imatrix.gguf",)),
    Runs("dsr.history/1", (
        "history --json", "history --json 1", "history --json --path", "history --json --delete 1 -y",
    )),
    Runs("dsr.node.list/1", ("node list --json --nodes 127.0.0.1:1",), quick=True),
    Runs("dsr.experts.profile/1", ("experts profile --json nano --limit 1 --max-tokens 100",)),
    Runs("dsr.experts.show/1", ("experts show --json nano",)),
    Runs("dsr.experts.prune/1", ("experts prune --json nano {w}/small.gguf --task addsub --keep auto",)),
    Runs("dsr.chat/1", (
        'chat --json --experts addsub --keep 50% --draft ngram "What is 347 + 586?"',
    )),
    Runs("dsr.bench.speed/1", ("bench speed --json nano {w}/q4.gguf --pp 16 --tg 4 --vote 1 -r 2 --threads 1",)),
    Runs("dsr.bench.quality/1", ("bench quality --json {w}/q4.gguf --against nano --chunks 1",)),
    Runs("dsr.bench.reason/1", ("bench reason --json nano --limit 1 --samples 2 --max-tokens 100 --alone 1",)),
    Runs("dsr.bench.reason.suites/1", ("bench reason --json --list-suites",), quick=True),
    Runs("dsr.bench.experts/1", ("bench experts --json nano --limit 1 --max-tokens 40 --keep 50%",)),
    Runs("dsr.bench.all/1", (
        "bench all --json nano --recipes q4_0 --allow-requantize --limit 1 --chunks 1 --max-tokens 40"
        " --strategies direct --experts 50%",
    )),
    Runs("dsr.bench.compare/1", ("bench compare --json nano {w}/q4.gguf --force",)),
    Runs("dsr.bench.history/1", ("bench history --json", "bench history --json --delete 1 -y")),
    Runs("dsr.bench.report/1", ("bench report --json nano -o {w}/report.html",)),
    Runs("dsr.pull/1", (
        "pull --json --dry-run org/model:Q8_0", "pull --json org/model:Q8_0",
    )),
    Runs("dsr.rm/1", ("rm --json --dry-run org/model:Q8_0", "rm --json -y org/model:Q8_0")),
)  # fmt: skip

_JSON_HEAD = """# JSON

With `--json` a command prints one object to stdout. `schema` names its kind and version. A field is never renamed or
removed without a new version; new fields may be added. Sizes are in bytes, times in seconds, losses in nats.

With `--jsonl`, long commands print a line for each event (`dsr.event/1`), and the object of `--json` as the last line.

A schema has the words of its command: `dsr bench reason` prints `dsr.bench.reason/1`. A command that fails prints
`dsr.error/1`, and its exit code is `exit_code`. If it has printed its own object before, it prints no second one.

Names and types on this page come from real runs with the embedded model; `python tests/reference.py --json` repeats
them. In a name, `[]` is each element of a list. `.*` is each entry of an object whose keys are data, such as the names
of tensor types.

Rows of the benches share three objects:

| field | content |
|---|---|
| `figures` | for each figure an object with `mean`, `error` (standard error, or null) and `count` |
| `parameters` | the options of the measurement, such as `threads` or `max_tokens` |
| `conditions` | `processor`, `cores`, `memory`, `dsr`, `engine`, `load`, `disturbed` |

`parameters` in other objects is the number of weights. `conditions` in `dsr.bench.reason/1` has the sampling options.
"""


def notes() -> dict[str, Any]:
    """What stands in `json.toml`: a line about each schema, the meanings of fields, and types that no run shows."""
    return tomllib.loads((REFERENCE / "json.toml").read_text(encoding="utf-8"))


def shape_of(value: object, known: Mapping[str, Any]) -> Shape:
    """The fields of an object with their types; `known` is what `json.toml` says."""
    found: Shape = {}
    _collect(value, "", frozenset(known["keyed"]), found)
    return found


def _collect(value: object, path: str, keyed: frozenset[str], found: Shape) -> None:
    if path:
        found.setdefault(path, set()).add(_type(value))
    if isinstance(value, dict):
        for key, each in value.items():
            name = "*" if path.rpartition(".")[2] in keyed else key
            if not (path == "" and key == "schema"):
                _collect(each, f"{path}.{name}" if path else name, keyed, found)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, (dict, list)):
                _collect(each, f"{path}[]", keyed, found)


def _type(value: object) -> str:
    for kind, name in ((bool, "true or false"), (int, "integer"), (float, "number"), (str, "text")):
        if isinstance(value, kind):
            return name
    if isinstance(value, list):
        kinds = sorted({_type(each) for each in value})
        return f"list of {' or '.join(kinds)}" if kinds else "list"
    return "null" if value is None else "object"


def merged(shapes: list[Shape]) -> Shape:
    """The fields of several objects of one schema."""
    found: Shape = {}
    for shape in shapes:
        for path, kinds in shape.items():
            found.setdefault(path, set()).update(kinds)
    return found


def run_all(schemas: Sequence[str] = ()) -> dict[str, Shape]:
    """Run every command, or those that print the given schemas, and return the fields of each schema."""
    from tests.dsr.models.other_stores import ollama_model
    from tests.hub_server import HubServer

    seen: dict[str, list[Shape]] = {}
    known = notes()
    nano = (ROOT / "dsr" / "data" / "nano.gguf").read_bytes()
    with tempfile.TemporaryDirectory() as folder, HubServer() as hub:
        hub.add("org/model", {"model-Q8_0.gguf": nano})
        home = Path(folder)
        ollama_model(home / "ollama", "registry.ollama.ai/library/tiny/latest", nano)
        for runs in RUNS:
            if schemas and runs.schema not in schemas:
                continue
            for command in runs.commands:
                sys.stderr.write(f"dsr {command}\n")
                arguments = shlex.split(command.format(w=home))
                # Not every code is 0: a node that cannot be reached, for one, is an object and an exit code.
                others = {"HF_ENDPOINT": hub.url, "OLLAMA_MODELS": str(home / "ollama")}
                done = _run(arguments, home, environment=others, check=False)
                bodies = [json.loads(line) for line in done.stdout.splitlines()]
                printed = [body for body in bodies if body["schema"] == runs.schema]
                assert printed, command
                seen.setdefault(runs.schema, []).extend(shape_of(body, known) for body in printed)
    return {schema: merged(shapes) for schema, shapes in seen.items()}


def json_page(shapes: Mapping[str, Shape]) -> str:
    """A table of fields for each schema."""
    known = notes()
    parts = [_JSON_HEAD]
    for schema, shape in sorted(shapes.items()):
        commands = dict.fromkeys(_bare(command) for runs in RUNS if runs.schema == schema for command in runs.commands)
        printed = _ANY.get(schema) or ", ".join(commands)
        parts += [f"## {schema}\n", known["schemas"][schema], "", f"Printed by {printed}.", ""]
        parts += ["| field | type | meaning |", "|---|---|---|"]
        parts += [f"| `{path}` | {_types(path, kinds, known)} | {_meaning(schema, path, known)} |"
                  for path, kinds in shape.items() if not told_once(path, known)]  # fmt: skip
        parts.append("")
    return "\n".join(parts)


# Schemas that many commands print.
_ANY = {"dsr.error/1": "any command", "dsr.event/1": "any command that has `--jsonl`, a line for each event"}


def _bare(command: str) -> str:
    """The command without what it is asked about: `dsr bench speed --json`."""
    return f"`dsr {command.partition(' --json')[0]} --json`"


def told_once(path: str, known: Mapping[str, Any]) -> bool:
    """Whether the head of the page, or the row of the list, says it: the field needs no row of its own."""
    return path.endswith("[]") or any(part.removesuffix("[]") in known["told_once"] for part in path.split(".")[:-1])


def _meaning(schema: str, path: str, known: Mapping[str, Any]) -> str:
    own = known.get(schema, {})
    return str(own.get(path) or known["fields"].get(path) or known["fields"].get(path.rpartition(".")[2], ""))


def _types(path: str, kinds: set[str], known: Mapping[str, Any]) -> str:
    """The types that were seen; where that is only null or an empty list, what `json.toml` says."""
    seen = in_words(kinds)
    told = str(known["types"].get(path.rpartition(".")[2], seen)) if seen in ("null", "list") else seen
    return told if told.endswith("null") or path not in known["nullable"] else f"{told} or null"


def in_words(kinds: set[str]) -> str:
    """One text for the types of a field: null last, and an integer is a number."""
    names = set(kinds)
    if "number" in names:
        names.discard("integer")
    if any(name.startswith("list of") for name in names):
        names.discard("list")
    if "list of number" in names:
        names.discard("list of integer")
    return " or ".join(sorted(names - {"null"}) + sorted(names & {"null"}))


def nano_losses(results: str) -> str:
    """dsr/data/nano-losses.toml: the KL divergence of each recipe's file of nano, by docs/results.md's first table."""
    table = results.split("\n| nano | ")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \| ([\d.]+) ±", table, re.MULTILINE)
    lines = [f"{name} = {value}" for name, value in rows if float(value)]
    return "\n".join(["# Made by `make docs` from docs/results.md (`dsr bench all nano`).", "[kld]", *lines, ""])


def documented(page: str) -> dict[str, dict[str, str]]:
    """The fields of each schema in json.md, with their types as text."""
    found: dict[str, dict[str, str]] = {}
    for section in page.split("\n## ")[1:]:
        schema, _, body = section.partition("\n")
        found[schema] = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", body, re.MULTILINE))
    return found


def with_new_meanings(page: str) -> str:
    """json.md with the fields that it has, and the texts of `json.toml` as they are now."""
    return json_page(shapes_in(page))


def shapes_in(page: str) -> dict[str, Shape]:
    """The fields that json.md has, of the schemas that a command still prints."""
    printed = {runs.schema for runs in RUNS}
    rows = {schema: fields for schema, fields in documented(page).items() if schema in printed}
    return {schema: {path: {kinds} for path, kinds in fields.items()} for schema, fields in rows.items()}


if __name__ == "__main__":
    (REFERENCE / "commands.md").write_text(commands_page(), encoding="utf-8")
    (REFERENCE / "classes.md").write_text(classes_page(), encoding="utf-8")
    api_page.PAGE.write_text(api_page.page(), encoding="utf-8")
    completion_table.FILE.write_text(completion_table.text(), encoding="utf-8")
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    losses = nano_losses((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    (ROOT / "dsr" / "data" / "nano-losses.toml").write_text(losses, encoding="utf-8")
    fields = REFERENCE / "json.md"
    before = fields.read_text(encoding="utf-8")
    wanted = sys.argv[sys.argv.index("--json") + 1 :] if "--json" in sys.argv else None
    text = with_new_meanings(before) if wanted is None else json_page(shapes_in(before) | run_all(wanted))
    fields.write_text(text, encoding="utf-8")
