"""Makes dsr/data/completions.json, the table from which shells complete, from the commands themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "dsr" / "data" / "completions.json"

# What an argument or an option takes, where its placeholder does not say it: (command, name) -> kinds.
_TAKES = {
    ("", "--strategy"): "strategies",
    ("", "--strategies"): "strategies",
    ("", "--suite"): "suites file:jsonl",
    ("", "--recipe"): "recipes file:toml",
    ("", "--recipes"): "recipes =all",
    ("", "--show-recipe"): "recipes",
    ("", "--task"): "tasks",
    ("", "--effort"): "=minimal =low =medium =high =max",
    ("", "--kv-type"): "=f16 =q8_0 =q4_0 =q5_0 =q5_1 =q4_1 =f32 =bf16",
    ("", "--template"): "file:jinja,json",
    ("", "--tools"): "file:json",
    ("", "--nodes"): "file:toml",
    ("", "--lora"): "file:gguf",
    ("", "--imatrix"): "file:gguf,dat",
    ("", "--add"): "file:gguf,dat",
    ("", "--format"): "=json file:json",
    ("", "--experts"): "=auto =off tasks",
    ("", "--family"): "families",
    ("experts show", "task"): "tasks",
    ("quantize", "src"): "model file:gguf,safetensors",
    ("quantize", "out"): "file:gguf",
    ("quantize", "more"): "recipes",
    ("experts prune", "out"): "file:gguf",
    ("bench compare", "a"): "model file:gguf",
    ("bench compare", "b"): "model file:gguf",
    ("pull", "model"): "catalogue",
    ("plan", "model"): "model catalogue file:gguf",
}


def table() -> dict[str, Any]:
    """The commands with their options and arguments, and the names that they take."""
    from dsr.cli import app
    from dsr.models import catalog
    from dsr.suites.suites import all_suites, find
    from quant.recipe.recipe import names
    from runtime.strategies.strategy import STRATEGIES

    entries = catalog.load().entries
    repositories = {repo.lower(): each.name for each in entries for repo in (each.gguf,) if repo}
    tasks = {each.task for name in ("nano-profile",) for each in find(name).problems if each.task}
    return {
        "root": _node(typer.main.get_command(app), ""),
        "catalogue": sorted({each.name for each in entries}),
        "families": sorted({each.family for each in entries}),
        "recipes": sorted(names()),
        "repositories": dict(sorted(repositories.items())),
        "strategies": sorted(STRATEGIES),
        "suites": sorted(each.name for each in all_suites()),
        "tasks": sorted(tasks),
    }


def _node(command: Any, path: str) -> dict[str, Any]:
    options: dict[str, dict[str, str]] = {"--help": {"help": "Show this message and exit."}}
    arguments = []
    for each in command.params:
        if each.param_type_name == "argument":
            arguments.append(_takes(path, each.name, each.metavar))
        elif not each.hidden:
            told = {"help": each.help or ""} | ({} if each.is_flag else {"takes": _option_takes(path, each)})
            options |= {name: told for name in (*each.opts, *each.secondary_opts) if name.startswith("--")}
            options |= {name: told for name in each.opts if not name.startswith("--") and "takes" in told}
    below = {name: _node(each, f"{path} {name}".strip()) for name, each in getattr(command, "commands", {}).items()}
    help = re.split(r"(?<=\.)\s", " ".join((command.help or "").split("\n\n")[0].split()))[0]
    return {"help": help, "options": options, "arguments": arguments, "commands": below}


def _option_takes(path: str, option: Any) -> str:
    return next((_TAKES[key] for name in option.opts for key in ((path, name), ("", name)) if key in _TAKES), None) or (
        _takes(path, "", option.metavar)
    )


def _takes(path: str, name: str, metavar: str | None) -> str:
    """The kinds of a placeholder: 'auto|TASK|off' takes two words and a task."""
    if (path, name) in _TAKES:
        return _TAKES[path, name]
    kinds = []
    for part in re.sub(r"[\[\].]", "", metavar or "").split("|"):
        if part in ("MODEL", "FILE", "FOLDER"):
            kinds.append({"MODEL": "model file:gguf", "FILE": "file", "FOLDER": "folder"}[part])
        elif part == "TASK":
            kinds.append("tasks")
        elif re.fullmatch(r"[a-z][a-z-]*", part):
            kinds.append(f"={part}")
    return " ".join(kinds)


def text() -> str:
    return json.dumps(table(), indent=0, ensure_ascii=False, sort_keys=True) + "\n"
