"""mcp.json files: servers, variables, and everything that is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsr.chat.tools.config import (
    LocalServer,
    RemoteServer,
    ToolsRequest,
    check_alone,
    read_tools_file,
    tools_request,
)
from runtime.base.errors import NotFound, UsageError
from runtime.engine.grammar import JSON_OBJECT
from runtime.strategies.strategy import find


def written(folder: Path, *servers: tuple[str, Any]) -> Path:
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": dict(servers)}))
    return path


def test_local_and_remote_servers(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        ("time", {"command": "uvx", "args": ["mcp-server-time", "${ZONE:-UTC}"], "env": {"KEY": "${SECRET}"}}),
        ("here", {"command": "./serve", "cwd": "sub"}),
        (
            "far",
            {"type": "http", "url": "https://example.org/mcp?key=1", "headers": {"Authorization": "Bearer ${SECRET}"}},
        ),
    )
    file = read_tools_file(path, {"SECRET": "s3"})
    assert file.servers == (
        LocalServer("time", "uvx", ("mcp-server-time", "UTC"), (("KEY", "s3"),), tmp_path),
        LocalServer("here", "./serve", (), (), tmp_path / "sub"),
        RemoteServer("far", "https://example.org/mcp?key=1", (("Authorization", "Bearer s3"),)),
    )
    assert [each.label for each in file.servers] == ["uvx mcp-server-time UTC", "./serve", "https://example.org/mcp"]


def test_a_file_cannot_allow_tools_and_disabled_servers_stay_out(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        ("a", {"command": "x", "alwaysAllow": ["rm"], "autoApprove": ["*"]}),
        ("b", {"command": "x", "disabled": True}),
    )
    file = read_tools_file(path)
    assert [each.name for each in file.servers] == ["a"]
    assert file.notes == (
        "server a: dsr does not know alwaysAllow, autoApprove, and asks before each call",
        "server b is disabled in mcp.json",
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("x", "server 'a': must be an object"),
        ({}, "server 'a': has neither a command nor a url"),
        ({"command": 3}, "server 'a': command must be a text, not 3"),
        ({"command": "x", "args": "y"}, "server 'a': args must be a list of texts"),
        ({"command": "x", "args": [1]}, "server 'a': args must be a text, not 1"),
        ({"command": "x", "env": ["y"]}, "server 'a': env must be an object of texts"),
        ({"command": "x", "env": {"K": 1}}, "server 'a': env.K must be a text, not 1"),
        ({"command": "x", "url": "http://y"}, "server 'a': has both a command and a url"),
        ({"command": "x\0"}, "server 'a': command has a zero byte"),
        (
            {"url": "file:///etc/passwd"},
            "server 'a': url must begin with http:// or https://, not 'file:///etc/passwd'",
        ),
        ({"url": "http://y", "type": "sse"}, "server 'a': speaks the old transport SSE, which dsr does not know"),
        ({"command": "${NO_SUCH}"}, "server 'a': the environment has no variable NO_SUCH"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, entry: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_tools_file(written(tmp_path, ("a", entry)), {})
    assert caught.value.message == f"{tmp_path / 'mcp.json'}: {said}"


@pytest.mark.parametrize(
    "text", ["[]", '{"servers": {}}', '{"mcpServers": []}', '{"mcpServers": {}}', "{", "[" * 99_999]
)
def test_files_that_name_no_servers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"mcp\.json"):
        read_tools_file(path)


def test_a_missing_file_and_too_many_servers(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_tools_file(tmp_path / "mcp.json")
    path = written(tmp_path, *((str(number), {"command": "x"}) for number in range(33)))
    with pytest.raises(UsageError, match="names 33 servers, and dsr starts at most 32"):
        read_tools_file(path)


def test_whatever_makes_another_program_makes_another_identity(tmp_path: Path) -> None:
    same = LocalServer("a", "x", ("y",), (("K", "v"),), tmp_path)
    others = [
        LocalServer("a", "z", ("y",), (("K", "v"),), tmp_path),
        LocalServer("a", "x", ("y", "z"), (("K", "v"),), tmp_path),
        LocalServer("a", "x", ("y",), (("K", "w"),), tmp_path),
        LocalServer("a", "x", ("y",), (("K", "v"),), tmp_path / "b"),
    ]
    assert len({same.identity, *(each.identity for each in others)}) == 5
    assert LocalServer("renamed", "x", ("y",), (("K", "v"),), tmp_path).identity == same.identity
    far = RemoteServer("r", "http://x", ())
    assert far.identity == RemoteServer("s", "http://x", (("A", "b"),)).identity
    assert far.identity != RemoteServer("r", "http://y", ()).identity


def test_options() -> None:
    assert tools_request(None, (), None, None) is None
    assert tools_request(Path("f"), ("a", "b"), None, 3) == ToolsRequest(Path("f"), frozenset({"a", "b"}), 60.0, 3)
    for given in ((("x",), None, None), ((), 1.0, None), ((), None, 3)):
        with pytest.raises(UsageError, match="is about tools, and there are none"):
            tools_request(None, *given)
    for seconds in (0.0, -1.0, 1e9, float("nan")):
        with pytest.raises(UsageError, match="must be above 0 and at most 86400 seconds"):
            tools_request(Path("f"), (), seconds, None)


def test_votes_and_forms_exclude_tools() -> None:
    check_alone(None, None)
    with pytest.raises(UsageError, match="--tools and the strategy vote exclude each other: a vote never runs tools"):
        check_alone(find("vote").configured(n=4), None)
    with pytest.raises(UsageError, match="--tools and --format exclude each other"):
        check_alone(None, JSON_OBJECT)
