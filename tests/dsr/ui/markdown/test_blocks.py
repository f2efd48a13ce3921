"""Markdown in blocks: which ended, which have not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.markdown.blocks import Block, BlockSplitter


def blocks(text: str) -> list[Block]:
    splitter = BlockSplitter()
    return [*splitter.feed(text), *splitter.finish()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n\nthree", [("text", "one\ntwo"), ("text", "three")]),
        ("# Title\ntext", [("text", "# Title"), ("text", "text")]),
        ("- a\n- b\n  more\n\n  still b\nend", [("text", "- a"), ("text", "- b\n  more\n\n  still b\nend")]),
        ("Steps:\n1. a\n2. b", [("text", "Steps:"), ("text", "1. a"), ("text", "2. b")]),
        ("```py\nx\n\ny\n```\nend", [("code", "x\n\ny"), ("text", "end")]),
        ("```\nnever closed", [("code", "never closed")]),
        (
            "1. a\n\n   ```\n   x\n\n   y\n   ```\n2. b",
            [("text", "1. a\n\n   ```\n   x\n\n   y\n   ```"), ("text", "2. b")],
        ),
        ("|a|b|\n|-|-|\n|1|2|\n\nend", [("table", "|a|b|\n|-|-|\n|1|2|"), ("text", "end")]),
        ("|a|b|\n|-|-|\n|1|2|\nend of\nit", [("table", "|a|b|\n|-|-|\n|1|2|"), ("text", "end of\nit")]),
        ("so\n\\[\nx\n\n= 1\n\\]\nend", [("text", "so"), ("formula", "\\[\nx\n\n= 1\n\\]"), ("text", "end")]),
        ("$$x$$", [("formula", "$$x$$")]),
        ("\n\n", []),
    ],
)
def test_a_text_is_divided(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(block.kind, block.text) for block in blocks(text)] == expected


def test_the_language_of_code_and_the_empty_lines_are_told() -> None:
    assert blocks("a\n\nb\n- c\n```python main\nx\n```") == [
        Block("text", "a", False),
        Block("text", "b", True),
        Block("text", "- c", False),
        Block("code", "x", True, "python"),
    ]


def test_what_has_not_ended_is_the_tail() -> None:
    splitter = BlockSplitter()
    assert splitter.feed("one\n\ntw") == [Block("text", "one", False)]
    assert splitter.tail == Block("text", "tw", True)
    assert splitter.feed("o\n") == []
    assert splitter.tail == Block("text", "two", True)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 200_000,
        "x" * 1_000_000,
        "```\n" + "line\n" * 100_000,
        "\\[" + "x\n" * 9_000,
        "```\n" + "y" * 100_000 + "\n",
    ],
)
def test_no_block_is_without_bound_and_nothing_is_lost(text: str) -> None:
    found = blocks(text)
    assert max(len(block.text) for block in found) <= 16_001
    kept = "".join(block.text for block in found)
    assert len("".join(kept.split())) == len("".join(text.removeprefix("```\n").split()))


PIECES = (
    "a b",
    " ",
    "\n",
    "\n\n",
    "# ",
    "- ",
    "  - ",
    "1. ",
    "```",
    "```py",
    "$$",
    "\\[",
    "\\]",
    "|a|b|",
    "|-|-|",
    "> ",
)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.integers(1, 5))
def test_blocks_do_not_depend_on_the_pieces(text: str, size: int) -> None:
    splitter = BlockSplitter()
    found = [block for at in range(0, len(text), size) for block in splitter.feed(text[at : at + size])]
    assert [*found, *splitter.finish()] == blocks(text)
