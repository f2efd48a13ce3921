"""From the options to a toolbox: servers of a file run, and what is wrong is told before a model is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dsr.chat.tools.config import ToolsRequest
from dsr.chat.tools.open_tools import open_tools
from dsr.store import paths
from dsr.ui.console import Console
from runtime.base.errors import DsrError, NotFound, VerificationFailed
from runtime.base.run import Stop

HOSTILE = str(Path(__file__).parent / "hostile_server.py")


def request(folder: Path, *allowed: str, **servers: list[str]) -> ToolsRequest:
    """A file with servers, which are given as the arguments of the hostile one."""
    entries = {name: {"command": sys.executable, "args": args} for name, args in servers.items()}
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": entries}))
    return ToolsRequest(path, frozenset(allowed))


def test_servers_run_and_the_others_are_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = request(tmp_path, "good_x", good=[HOSTILE, "ok"], bad=["-c", "import sys; sys.exit('no key')"])
    with open_tools(wanted, Console(), Stop()) as toolbox:
        assert [each.name for each in toolbox.tools] == ["good_x"]
        assert not toolbox.gate.terminal
    assert capsys.readouterr().err == (
        "warning: the tool server bad does not start: it ended with exit code 1: no key\n1 tool of 1 server: good_x\n"
    )


def test_hostile_names_are_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_tools(request(tmp_path, h=[HOSTILE, "names"]), Console(), Stop()) as toolbox:
        assert [each.name for each in toolbox.tools] == ["h_rm_2J_-rf", "h_rm_-rf", "h", "h_2", "h_ok"]
    assert "\x1b" not in capsys.readouterr().err


def test_schemas_that_no_prompt_can_hold_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_tools(request(tmp_path, h=[HOSTILE, "schemas"]), Console(), Stop()) as toolbox:
        assert [each.name for each in toolbox.tools] == ["h_ok"]
    assert "server h: the tool deep is left out: its schema has more than 32 levels\n" in capsys.readouterr().err


def test_no_server_and_an_unknown_tool_are_errors(tmp_path: Path) -> None:
    with (
        pytest.raises(DsrError, match="no tool server starts"),
        open_tools(request(tmp_path, bad=["-c", ""]), Console(), Stop()),
    ):
        raise AssertionError
    with (
        pytest.raises(NotFound, match="--allow-tool y: there is no such tool") as caught,
        open_tools(request(tmp_path, "all", "y", good=[HOSTILE, "ok"]), Console(), Stop()),
    ):
        raise AssertionError
    assert caught.value.hint == "the tools are good_x"


def test_a_damaged_list_of_consents_is_told_before_anything_starts(tmp_path: Path) -> None:
    paths.consents_file().parent.mkdir(parents=True, exist_ok=True)
    paths.consents_file().write_text("{}")
    with (
        pytest.raises(VerificationFailed, match="is damaged"),
        open_tools(request(tmp_path, good=[HOSTILE, "ok"]), Console(), Stop()),
    ):
        raise AssertionError
