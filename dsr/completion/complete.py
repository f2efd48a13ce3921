"""The words that may stand at the end of a command line, from the table of all commands.

The table (`dsr/data/completions.json`) is made by tests/reference.py from the commands. Everything here uses only the
quickest parts of Python, because it runs at every press of Tab.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

TABLE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "completions.json")
_MOST = 300


def read_table() -> dict[str, Any]:
    with open(TABLE, encoding="utf-8") as file:
        table: dict[str, Any] = json.load(file)
        return table


class Found(NamedTuple):
    """The candidates, each with a line about it or "". `replaces`: the part of the last word that they stand for."""

    words: Mapping[str, str]
    replaces: str


def complete(words: Sequence[str], table: Mapping[str, Any]) -> Found:
    """The candidates for the last of `words`, which are those after `dsr`; it may be empty."""
    *before, last = words or ("",)
    node: Mapping[str, Any] = table["root"]
    wants: str | None = None  # the kind of value that the option before takes
    arguments = 0
    only_arguments = False
    for word in before:
        if wants is not None:
            wants = None
        elif only_arguments or not word.startswith("-") or word == "-":
            if word in node["commands"]:
                node = node["commands"][word]
            else:
                arguments += 1
        elif word == "--":
            only_arguments = True
        elif "=" not in word:
            wants = node["options"].get(word, {}).get("takes")
    if wants is not None:
        return Found(_values(wants, last, table), last)
    if last.startswith("-") and not only_arguments:
        name, equals, start = last.partition("=")
        if equals:
            return Found(_values(node["options"].get(name, {}).get("takes") or "", start, table), start)
        return Found({each: told["help"] for each, told in node["options"].items() if each.startswith(last)}, last)
    found = {}
    if not arguments:
        found = {each: told["help"] for each, told in node["commands"].items() if each.startswith(last)}
    kinds = node["arguments"]
    if kinds:
        found |= _values(kinds[min(arguments, len(kinds) - 1)], last, table)
    return Found(found, last)


def _values(kinds: str, start: str, table: Mapping[str, Any]) -> dict[str, str]:
    """The values of the kinds, such as "model file:json =auto", that begin with `start`."""
    found: dict[str, str] = {}
    for kind in kinds.split():
        name, _, more = kind.partition(":")
        if kind.startswith("="):
            found |= _beginning([kind[1:]], start)
        elif name in ("file", "folder"):
            found |= _beginning(_files(start, more.split(",") if more else [], folders=name == "folder"), start)
        elif name == "model":
            here = _models_here(table["repositories"])
            found |= _beginning(here, start) or _beginning(table["catalogue"], start)
        else:
            found |= _beginning(table.get(name, ()), start)
    return found


def _beginning(names: Iterable[str], start: str) -> dict[str, str]:
    return {name: "" for name in names if name.startswith(start)}


def _files(start: str, endings: Sequence[str], *, folders: bool) -> list[str]:
    """The folders, and the files with one of the endings; hidden ones only if `start` says so."""
    head, name = os.path.split(start)
    found = []
    try:
        with os.scandir(os.path.expanduser(head) or ".") as entries:
            for entry in entries:
                if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
                    continue
                if entry.is_dir():
                    found.append(os.path.join(head, entry.name) + "/")
                elif not folders and (not endings or entry.name.lower().rpartition(".")[2] in endings):
                    found.append(os.path.join(head, entry.name))
    except OSError:
        return []
    return sorted(found)[:_MOST]


def _models_here(repositories: Mapping[str, str]) -> list[str]:
    """The names of the models in the cache: the catalogue's, and org/repo:QUANT. As `cache_scan` finds them."""
    names = ["nano"]
    folder = _cache_folder()
    try:
        for entry in sorted(os.listdir(folder)):
            parts = entry.split("--")
            if len(parts) == 3 and parts[0] == "models":
                names += _in_repository(os.path.join(folder, entry), "/".join(parts[1:]), repositories)
    except OSError:
        pass
    return list(dict.fromkeys(names))


def _in_repository(folder: str, repo: str, repositories: Mapping[str, str]) -> list[str]:
    files = [name for _, _, names in os.walk(os.path.join(folder, "snapshots")) for name in names]
    found = [name[: -len(".gguf")] for name in files if name.endswith(".gguf") and not name.startswith("mmproj")]
    if not found:
        return []
    short = repositories.get(repo.lower())
    quants = {stem.split("-00001-of-")[0].replace(".", "-").rpartition("-")[2].upper() for stem in found}
    known = sorted(quant for quant in quants if quant[:1] in ("Q", "I", "F", "B", "M", "T") and quant[-1:].isalnum())
    return [*([short] if short else []), *(f"{repo}:{quant}" for quant in known if any(map(str.isdigit, quant)))]


def _cache_folder() -> str:
    told = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if told:
        return os.path.expanduser(told)
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return os.path.join(os.path.expanduser(home), "hub")
