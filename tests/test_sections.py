"""A command replaces its own part of a document alone."""

from __future__ import annotations

from tests.sections import replaced

DOCUMENT = """# Results

<!-- made: bench -->

old

<!-- end: bench -->

## By hand

stays
"""


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    assert replaced(DOCUMENT, "bench", "new \\1\n") == DOCUMENT.replace("old", "new \\1")


def test_a_part_that_is_new_comes_last() -> None:
    assert replaced(DOCUMENT, "other", "text") == f"{DOCUMENT}\n<!-- made: other -->\n\ntext\n\n<!-- end: other -->\n"


def test_a_part_that_is_written_twice_is_there_once() -> None:
    once = replaced(DOCUMENT, "other", "text")
    assert replaced(once, "other", "text") == once
