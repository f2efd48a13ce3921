"""The servers of an mcp.json file, in the form that editors and desktop programs share: {"mcpServers": {...}}."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.base.errors import NotFound, UsageError
from runtime.base.texts import parse_json, read_text
from runtime.engine.grammar import Grammar
from runtime.strategies.strategy import Strategy

ALL = "all"  # the value of --allow-tool for every tool
MOST_SERVERS = 32  # each is a process
_LONGEST_CALL = 86_400.0  # a day
_VARIABLE = re.compile(r"\$\{(?:env:)?(\w+)(?::-([^}]*))?\}")
_LOCAL, _REMOTE = {"command", "args", "env", "cwd"}, {"url", "headers"}
# Other programs also write these fields. dsr reads some of them, and ignores the rest without harm.
_HARMLESS = {"type", "transport", "description", "name", "disabled", "enabled"}
_HINT = 'write it like {"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}'


@dataclass(frozen=True, slots=True)
class ToolsRequest:
    """The options of `dsr chat` about tools. `allowed`: names of tools that run without a question, or "all".

    `seconds`: the longest call. `rounds`: how often the answer to one question may lead to calls.
    """

    file: Path
    allowed: frozenset[str] = frozenset()
    seconds: float = 60.0
    rounds: int = 10


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that dsr starts and talks to over its standard streams. `folder`: where it runs."""

    name: str
    command: str
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    folder: Path

    @property
    def label(self) -> str:
        """The command line, for people. It leaves out the environment, which may hold secrets."""
        return shlex.join((self.command, *self.args))

    @property
    def identity(self) -> str:
        """A digest that changes with anything that can make the server another program."""
        found = shutil.which(self.command, path=dict(self.env).get("PATH")) or self.command
        return _digest([os.path.realpath(found), self.args, sorted(self.env), str(self.folder)])


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """A server that is reached by streamable HTTP."""

    name: str
    url: str
    headers: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        return self.url.partition("?")[0]  # the rest may be a key

    @property
    def identity(self) -> str:
        return _digest([self.url])  # a new token in the headers is the same server


ServerConfig = LocalServer | RemoteServer


@dataclass(frozen=True, slots=True)
class ToolsFile:
    """The servers of a file, and lines for a person about parts that dsr leaves out."""

    servers: tuple[ServerConfig, ...]
    notes: tuple[str, ...] = ()


def tools_request(
    file: Path | None, allowed: Sequence[str], seconds: float | None, rounds: int | None
) -> ToolsRequest | None:
    """The options of a command line; None without --tools. Raises UsageError."""
    if file is None:
        given = {"--allow-tool": allowed or None, "--tool-timeout": seconds, "--tool-rounds": rounds}
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"{option} is about tools, and there are none", hint="add --tools mcp.json")
        return None
    if seconds is not None and not 0 < seconds <= _LONGEST_CALL:
        raise UsageError(f"--tool-timeout must be above 0 and at most {_LONGEST_CALL:g} seconds, not {seconds:g}")
    usual = ToolsRequest(file)
    return ToolsRequest(file, frozenset(allowed), seconds or usual.seconds, rounds or usual.rounds)


def check_alone(strategy: Strategy | None, grammar: Grammar | None) -> None:
    """Raise UsageError for options that tools exclude."""
    if strategy is not None and not strategy.plain:
        raise UsageError(
            f"--tools and the strategy {strategy.kind.name} exclude each other: a vote never runs tools",
            hint="leave out one of the two",
        )
    if grammar is not None:
        raise UsageError(
            "--tools and --format exclude each other: a call has a form of its own", hint="leave out one of the two"
        )


def read_tools_file(path: Path, environ: Mapping[str, str] = os.environ) -> ToolsFile:
    """Read an mcp.json file. Raises NotFound, and UsageError that names the server and the key."""
    try:
        text = read_text(path)
    except NotFound as error:
        raise NotFound(error.message, hint=f"--tools takes an mcp.json file; {_HINT}") from None
    body = parse_json(text, str(path))
    servers = body.get("mcpServers") if isinstance(body, dict) else None
    if not isinstance(servers, dict):
        raise UsageError(f'{path}: has no object "mcpServers"', hint=_HINT)
    if len(servers) > MOST_SERVERS:
        raise UsageError(f"{path}: names {len(servers)} servers, and dsr starts at most {MOST_SERVERS}")
    found: list[ServerConfig] = []
    notes: list[str] = []
    for name, entry in servers.items():
        where = f"{path}: server {name!r}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: must be an object", hint=_HINT)
        if entry.get("disabled") is True or entry.get("enabled") is False:
            notes.append(f"server {name} is disabled in {path.name}")
            continue
        found.append(_server(name, entry, path.absolute().parent, where, environ))
        if left := sorted(set(entry) - _LOCAL - _REMOTE - _HARMLESS):
            notes.append(f"server {name}: dsr does not know {', '.join(left)}, and asks before each call")
    if not found:
        raise UsageError(f"{path}: names no server", hint=_HINT)
    return ToolsFile(tuple(found), tuple(notes))


def _server(name: str, entry: dict[str, Any], folder: Path, where: str, environ: Mapping[str, str]) -> ServerConfig:
    kind = entry.get("type", entry.get("transport", ""))
    if kind == "sse":
        raise UsageError(
            f"{where}: speaks the old transport SSE, which dsr does not know",
            hint="many such servers also have a streamable HTTP address: ask its documentation",
        )
    if "command" in entry and "url" in entry:
        raise UsageError(f"{where}: has both a command and a url", hint="leave out one of them")

    def text(key: str, value: object) -> str:
        if not isinstance(value, str):
            raise UsageError(f"{where}: {key} must be a text, not {json.dumps(value)[:80]}")
        if "\0" in value:
            raise UsageError(f"{where}: {key} has a zero byte")
        return _expanded(value, where, environ)

    def texts(key: str) -> tuple[tuple[str, str], ...]:
        given = entry.get(key) or {}
        if not isinstance(given, dict):
            raise UsageError(f"{where}: {key} must be an object of texts")
        return tuple((each, text(f"{key}.{each}", value)) for each, value in given.items())

    if "url" in entry:
        url = text("url", entry["url"])
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{where}: url must begin with http:// or https://, not {url[:80]!r}")
        return RemoteServer(name, url, texts("headers"))
    if not entry.get("command"):
        raise UsageError(f"{where}: has neither a command nor a url", hint=_HINT)
    args = entry.get("args") or []
    if not isinstance(args, list):
        raise UsageError(f"{where}: args must be a list of texts")
    cwd = entry.get("cwd")
    return LocalServer(
        name,
        text("command", entry["command"]),
        tuple(text("args", each) for each in args),
        texts("env"),
        # Relative paths then name the same program wherever dsr is started, which consent relies on.
        folder if cwd is None else folder / Path(text("cwd", cwd)).expanduser(),
    )


def _expanded(value: str, where: str, environ: Mapping[str, str]) -> str:
    """With the values of ${NAME} and ${NAME:-default}, so that a file need not hold a key."""

    def value_of(found: re.Match[str]) -> str:
        name, default = found.groups()
        known = environ.get(name, default)
        if known is None:
            raise UsageError(f"{where}: the environment has no variable {name}", hint=f"set it: export {name}=...")
        return known

    return _VARIABLE.sub(value_of, value)


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
