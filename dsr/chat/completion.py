"""What the Tab key may write at the end of a line: commands, their arguments, and files after an @."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runtime.base.files import expanded

# Given the words before the one to complete, the words that may stand there; FILES for the name of a file.
Arguments = Callable[[str], Iterable[str]]
FILES = "a file"
_MENTION = re.compile(r'(?:^|\s)@("?)((?<=")[^"]*|[^\s"]*)$')
_MOST = 200  # entries of a folder


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command: its line of help, what it does with the rest of the line, and the arguments that it knows."""

    help: str
    run: Callable[[str], None]
    arguments: Arguments = lambda _: ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text` takes the place of the last `replaced` characters; `shown` stands in the menu."""

    text: str
    replaced: int
    shown: str


def candidates(line: str, commands: Mapping[str, Command]) -> list[Candidate]:
    """The candidates at the end of `line`, in their order."""
    if line.startswith("/"):
        name, space, rest = line.partition(" ")
        if not space:
            return [Candidate(each, len(name), each) for each in commands if each.startswith(name)]
        if name in commands and (known := _arguments(commands[name], rest)):
            return known
    if (found := _MENTION.search(line)) is not None:
        quote, start = found.groups()
        return [Candidate(_mention(path), len(start) + len(quote), path) for path in _paths(start)]
    return []


def _arguments(command: Command, rest: str) -> list[Candidate]:
    before, _, last = rest.rpartition(" ")
    known = [*command.arguments(before.strip())]
    if FILES in known:
        return [Candidate(path, len(rest), path) for path in _paths(rest)]
    return [Candidate(each, len(last), each) for each in known if each.startswith(last)]


def _mention(path: str) -> str:
    if " " not in path:
        return path
    return f'"{path}' if path.endswith("/") else f'"{path}"'


def _paths(start: str) -> list[str]:
    """The files and folders whose name begins as `start`; hidden ones only if it says so."""
    head, name = os.path.split(start)
    folder = expanded(head)
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry.name, entry.is_dir())
                for entry in entries
                if entry.name.startswith(name) and (name.startswith(".") or not entry.name.startswith("."))
            )
    except OSError:
        return []
    return [os.path.join(head, each) + ("/" if is_folder else "") for each, is_folder in found[:_MOST]]
