"""Who may import whom, and what only one file may touch."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A package may import itself and the packages below it.
PACKAGES = {
    "dsr": ("dsr", "quant", "runtime", "prompts"),
    "quant": ("quant", "runtime", "prompts"),
    "runtime": ("runtime", "prompts"),
    "prompts": ("prompts",),
}
# Inside a package: the rooms from the top floor down. A room imports only rooms below its own.
FLOORS = {
    "dsr": (
        "cli", "completion", "commands", "options", "bench", "serve", "api", "chat", "experts", "quantize", "doctor",
        "plan", "loading", "suites", "hub", "models", "ui", "store",
    ),
    "quant": (
        "experts", "to_a_size", "measure", "write", "round", "recipe", "plan", "open_source", "convert", "sources",
        "gguf",
    ),
    "runtime": (
        "strategies", "nodes", "placement", "machine", "llama", "from_disk", "engine", "confined", "answers", "gguf",
        "base",
    ),
}  # fmt: skip
# Inside of dsr: what is named on the left is imported only by what begins like the right.
ONLY_BY = {
    "dsr.cli": ("dsr.__main__",),
    "dsr.commands": ("dsr.commands", "dsr.cli"),
    "dsr.chat.repl": ("dsr.chat.session",),
}
FENCED = {
    "llama_cpp": ("runtime.llama",),
    "ctypes": ("runtime.llama",),
    "llguidance": ("runtime.llama",),
    "rich": ("dsr.ui",),
    "markdown_it": ("dsr.ui.markdown.render",),
    "pygments": ("dsr.ui.markdown.render",),
    "typer": ("dsr.cli", "dsr.options", "dsr.commands"),
    "huggingface_hub": ("dsr.hub.environment",),
    "httpx2": ("dsr.hub.http", "dsr.chat.tools.remote"),
    "mcp": ("dsr.chat.tools",),
    "mcp_types": ("dsr.chat.tools",),
    "anyio": ("dsr.chat.tools",),
    "jinja2": ("runtime.engine.sandbox", "dsr.bench.report.page"),
    "prompt_toolkit": ("dsr.chat.line_editor",),
    "math_verify": ("runtime.answers.symbolic",),
    "psutil": ("runtime.machine.host",),
    "platformdirs": ("dsr.store.paths",),
    "starlette": ("dsr.serve",),
    "uvicorn": ("dsr.serve",),
    "pydantic": ("dsr.serve",),
    "prometheus_client": ("dsr.serve",),
}
# Slow to import: inside of functions only, where they are needed.
LATE = (
    "llama_cpp", "numpy", "rich", "huggingface_hub", "httpx2", "jinja2", "prompt_toolkit", "runtime.llama",
    "runtime.engine.entropy", "runtime.from_disk.lookahead", "runtime.from_disk.policy", "tests.routing.replay",
    "tests.routing.trace", "dsr.chat.repl", "dsr.chat.line_editor", "math_verify", "gguf",
    "llguidance", "mcp", "mcp_types", "anyio", "dsr.chat.tools.servers",
    "dsr.ui.markdown.render", "dsr.ui.markdown.stream", "markdown_it", "pygments",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """`late` when it runs inside a function; `typing` when it never runs (`if TYPE_CHECKING:`).

    `parts` are what is imported from it; each is an `Import` of its own as well.
    """

    name: str
    line: int
    late: bool
    typing: bool
    parts: tuple[str, ...] = ()

    def asks_for_modules(self, modules: Container[str]) -> bool:
        """Whether it is a package of which only modules are wanted: `from package import module`."""
        return bool(self.parts) and all(f"{self.name}.{part}" in modules for part in self.parts)


def imports(tree: ast.AST, late: bool = False, typing: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, late, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield Import(base, node.lineno, late, typing, tuple(alias.name for alias in node.names))
            yield from (Import(f"{base}.{alias.name}", node.lineno, late, typing) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imports(ast.Module(node.body, []), late, True)
            yield from imports(ast.Module(node.orelse, []), late, typing)
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports(node, late or inside, typing)


def begins(name: str, *starts: str) -> bool:
    return any(name == start or name.startswith(start + ".") for start in starts)


def violations(sources: Mapping[str, str]) -> list[str]:
    """Everything that is against the rules in `sources`, by module name."""
    found = []
    graph: dict[str, list[str]] = {}
    for module, source in sources.items():
        tree = ast.parse(source)
        room = module.partition(".")[0]
        wanted = list(imports(tree))
        for each in wanted:
            at = f"{module}:{each.line}"
            if each.name.startswith("."):
                found.append(f"{at}: a relative import")
            for other in PACKAGES:
                if begins(each.name, other) and other not in PACKAGES[room]:
                    found.append(f"{at}: {room} imports {each.name}")
            if goes_up(module, each.name):
                found.append(f"{at}: {each.name} is on a floor above")
            for name, users in ONLY_BY.items():
                if begins(each.name, name) and not begins(module, name, *users):
                    found.append(f"{at}: {each.name} is imported outside of {', '.join(users)}")
            for name, users in FENCED.items():
                if begins(each.name, name) and not begins(module, *users):
                    found.append(f"{at}: {name} is imported outside of {', '.join(users)}")
            if begins(each.name, *LATE) and not each.late and not each.typing and not may_be_heavy(module):
                found.append(f"{at}: {each.name} is imported at the top")
        found += [f"{module}:{line}: print()" for line in prints(tree)]
        runs = [each for each in wanted if not each.late and not each.typing]
        graph[module] = [each.name for each in runs if each.name in sources and not each.asks_for_modules(sources)]
    return sorted(set(found)) + [f"a cycle of imports: {' -> '.join(cycle)}" for cycle in cycles(graph)]


def goes_up(module: str, name: str) -> bool:
    """Whether `module` imports `name` from a room of its own package that is on a floor above."""
    package, _, rest = module.partition(".")
    other, _, inside = name.partition(".")
    floors = FLOORS.get(package, ())
    room, target = rest.partition(".")[0], inside.partition(".")[0]
    return package == other and room in floors and target in floors and floors.index(target) < floors.index(room)


def may_be_heavy(module: str) -> bool:
    """Modules that are themselves imported late."""
    return begins(
        module,
        "runtime.llama",
        "runtime.engine.sandbox",
        "runtime.engine.entropy",
        "runtime.from_disk.in_turn",
        "runtime.from_disk.lookahead",
        "runtime.from_disk.policy",
        "runtime.from_disk.weights",
        "dsr.chat.repl",
        "dsr.chat.line_editor",
        "dsr.ui.markdown.render",
        "dsr.ui.markdown.stream",
        "dsr.chat.tools.servers",
        "dsr.chat.tools.local_process",
        "dsr.chat.tools.remote",
        "quant",
    )


def prints(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "pprint"):
            yield node.lineno


def cycles(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """One path per cycle met on a walk from every module."""
    done: set[str] = set()
    met: list[list[str]] = []

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            met.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in graph[module]:
                walk(other, [*path, module])
            done.add(module)

    for module in graph:
        walk(module, [])
    return met


def our_sources() -> dict[str, str]:
    sources = {}
    for room in PACKAGES:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[name] = path.read_text(encoding="utf-8")
    return sources


def test_the_rooms_keep_to_their_layers() -> None:
    sources = our_sources()
    assert {"dsr.cli", "dsr.chat.conversation", "quant", "runtime.llama", "prompts"} <= set(sources)
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("runtime.bad", "import dsr.store.paths", "runtime.bad:1: runtime imports dsr.store.paths"),
        ("runtime.bad", "def f():\n    from dsr import paths", "runtime.bad:2: runtime imports dsr"),
        ("runtime.bad", "from quant.measure import imatrix", "runtime.bad:1: runtime imports quant.measure"),
        ("quant.bad", "import dsr", "quant.bad:1: quant imports dsr"),
        ("prompts.bad", "import runtime.base.types", "prompts.bad:1: prompts imports runtime.base.types"),
        ("dsr.bad", "from dsr.commands import chat", "dsr.commands is imported outside of dsr.commands, dsr.cli"),
        ("dsr.chat.bad", "from dsr import commands", "dsr.commands is imported outside of"),
        (
            "dsr.bad",
            "from dsr.chat.repl import Repl",
            "is imported outside of dsr.chat.session",
        ),
        ("dsr.chat.bad", "import dsr.cli", "dsr.cli is imported outside of dsr.__main__"),
        ("runtime.bad", "def f():\n    import ctypes", "ctypes is imported outside of runtime.llama"),
        ("quant.bad", "from llama_cpp import llama_cpp", "llama_cpp is imported outside of runtime.llama"),
        ("dsr.bad", "def f():\n    from rich.text import Text", "rich is imported outside of"),
        ("dsr.chat.bad", "import typer", "typer is imported outside of"),
        (
            "dsr.models.library",
            "def f():\n    import huggingface_hub",
            "huggingface_hub is imported outside of dsr.hub.environment",
        ),
        ("dsr.hub.environment", "import huggingface_hub", "huggingface_hub is imported at the top"),
        ("dsr.bad", "from runtime.llama import LlamaBackend", "runtime.llama is imported at the top"),
        ("dsr.bad", "try:\n    import numpy\nexcept ImportError:\n    pass", "numpy is imported at the top"),
        ("dsr.models.bad", "from dsr.chat import session", "dsr.models.bad:1: dsr.chat is on a floor above"),
        (
            "runtime.engine.bad",
            "def f():\n    import runtime.llama",
            "runtime.engine.bad:2: runtime.llama is on a floor",
        ),
        (
            "quant.sources.bad",
            "from quant.plan import QuantPlan",
            "quant.sources.bad:1: quant.plan is on a floor above",
        ),
        ("runtime.bad", "from . import types", "a relative import"),
        ("runtime.bad", "def f(x):\n    print(x)", "runtime.bad:2: print()"),
    ],
)
def test_what_breaks_the_rules_is_noticed(module: str, source: str, complaint: str) -> None:
    assert any(complaint in violation for violation in violations({module: source}))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dsr.commands.good", "import typer\ndef f():\n    from dsr.chat import session"),
        ("dsr.good", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from runtime.llama import EngineInfo"),
        ("runtime.good", "from runtime.base.types import Message\nimport prompts"),
        ("quant.good", "import numpy\nfrom runtime.gguf import reader"),
        ("runtime.good", "fingerprint()\nconsole.print()"),
        ("dsr.chat.good", "import richness, typerwriter"),
    ],
)
def test_what_keeps_them_is_left_alone(module: str, source: str) -> None:
    assert violations({module: source}) == []


def test_every_room_has_its_floor() -> None:
    for package, floors in FLOORS.items():
        rooms = {path.stem for path in (ROOT / package).iterdir() if path.is_dir() or path.suffix == ".py"}
        assert rooms - {"__init__", "__main__", "__pycache__", "data"} == set(floors)


def test_a_cycle_is_noticed() -> None:
    sources = {
        "runtime.a": "from runtime import b",
        "runtime.b": "def f():\n    import runtime.a\nimport runtime.c",
        "runtime.c": "from runtime.a import x",
    }
    assert violations(sources) == ["a cycle of imports: runtime.a -> runtime.b -> runtime.c -> runtime.a"]
    sources["runtime.c"] = "def f():\n    from runtime.a import x"
    assert violations(sources) == []
