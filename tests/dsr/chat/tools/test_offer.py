"""Names and sizes of the tools that a model is offered, and the text of results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mcp_types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, ResourceLink, TextContent

from dsr.chat.tools.config import LocalServer
from dsr.chat.tools.offer import MOST_TOOLS, ListedTool, offer
from dsr.chat.tools.results import result_text, shortened, tokens_for_result

ANY: dict[str, Any] = {"type": "object", "properties": {}}


def server(name: str) -> LocalServer:
    return LocalServer(name, "x", (), (), Path("/"))


def names(*listed: tuple[str, str]) -> list[str]:
    """The offered names of tools, which are given as (server, tool)."""
    return [
        each.tool.name for each in offer([(server(one), [ListedTool(tool, "", ANY)]) for one, tool in listed]).tools
    ]


def test_names_are_allowed_short_and_unique() -> None:
    assert names(("time", "now"), ("my server", "a.b/c")) == ["time_now", "my_server_a_b_c"]
    assert names(("a", "b_c"), ("a_b", "c"), ("a b", "c")) == ["a_b_c", "a_b_c_2", "a_b_c_3"]
    assert names(("s", "rm\x1b[2J -rf"), ("", ""), ("ü", "é")) == ["s_rm_2J_-rf", "tool", "tool_2"]
    long = names(("s", "x" * 300), ("s", "x" * 400))
    assert [len(each) for each in long] == [64, 64]
    assert long[1].endswith("_2")


@given(st.lists(st.tuples(st.text(), st.text(max_size=80)), max_size=30))
def test_any_names_become_unique_names_that_an_api_allows(listed: list[tuple[str, str]]) -> None:
    found = names(*listed)
    assert len(set(found)) == len(found) == len(listed)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in found)


def test_a_tool_says_its_own_name_without_control_characters() -> None:
    found = offer([(server("s\x1b"), [ListedTool("rm\n-rf\x1b[2J", "Say\x1b[2J\u202e it\x07.", ANY)])]).tools[0]
    assert str(found) == "rm -rf[2J of the server s"
    assert found.tool.description == "Say[2J it."
    assert found.name == "rm\n-rf\x1b[2J"  # the server knows no other


def test_tools_that_no_prompt_can_hold_are_left_out_and_told() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(3000):
        deep = {"x": deep}
    listed = [
        ListedTool("deep", "", deep),
        ListedTool("large", "", {"type": "object", "description": "x" * 40_000}),
        ListedTool("array", "", {"type": "array"}),
        ListedTool("ok", "d" * 5000, ANY),
    ]
    found = offer([(server("s"), listed)])
    assert [each.tool.name for each in found.tools] == ["s_ok"]
    assert len(found.tools[0].tool.description) == 4100
    assert found.notes == (
        "server s: the tool deep is left out: its schema has more than 32 levels",
        "server s: the tool large is left out: its schema has 40,037 bytes, more than 32,768",
        "server s: the parameters of the tool s_array must be an object",
    )
    many = offer([(server("s"), [ListedTool(f"t{number}", "", ANY) for number in range(MOST_TOOLS + 2)])])
    assert len(many.tools) == 128
    assert many.notes == ("the model is offered the first 128 tools; 2 more tools left out",)


def test_parts_of_a_result() -> None:
    parts = [
        TextContent(text="one\x00\x1b[2J\u202e two\u200d\U000e0041"),
        ImageContent(data="AAAA", mime_type="image/png\x1b"),
        AudioContent(data="?", mime_type="audio/wav"),
        ResourceLink(name="n", uri="file:///etc\x1b"),
        EmbeddedResource(resource=BlobResourceContents(uri="u", blob="AAAAAAAA")),
    ]
    assert result_text(parts) == (
        "one[2J two\u200d\n[image of type image/png, 3 B, not read]\n[audio of type audio/wav, 0 B, not read]\n"
        "[resource n: file:///etc]\n[resource u, 6 B, not read]"
    )
    assert result_text([], {"a": 1}) == '{"a": 1}'
    assert result_text([TextContent(text="t")], {"a": 1}) == "t"
    assert result_text([]) == ""


def test_a_result_takes_a_quarter_of_the_context_and_all_leave_half_of_the_room() -> None:
    assert tokens_for_result(8000, 1000, 1) == 2000
    assert tokens_for_result(8000, 6000, 1) == 1000
    assert tokens_for_result(8000, 6000, 4) == 250
    assert tokens_for_result(8000, 8000, 1) == tokens_for_result(8000, 9000, 1) == 0


def test_a_result_is_cut_to_its_tokens() -> None:
    assert shortened("abc", 3, len) == "abc"
    assert shortened("abcd" * 1000, 3, len) == "abc\n[cut: 3,997 more characters]"
    assert shortened("a b c", 2, lambda text: len(text.split())) == "a b\n[cut: 2 more characters]"
    assert shortened("abc", 0, len) == "\n[cut: 3 more characters]"
    assert shortened("x" * 300_000, 10**6, len) == "x" * 200_000 + "\n[cut: 100,000 more characters]"
