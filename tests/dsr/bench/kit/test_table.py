"""The table of all benches."""

from __future__ import annotations

from dsr.bench.kit.table import Table, csv_text, left, right

TABLE = Table.of((*left("model"), *right("speed", "memory")), [("nano", "12.5", ""), ("a|b", "3", "")], "both")


def test_markdown() -> None:
    assert TABLE.markdown() == (
        "| model | speed | memory |",
        "| :-- | --: | --: |",
        "| nano | 12.5 |  |",
        "| a\\|b | 3 |  |",
    )


def test_a_bar_is_escaped_once() -> None:
    assert Table.of(left("`x|y`"), [("a\\|b|c",)]).markdown() == ("| `x\\|y` |", "| :-- |", "| a\\|b\\|c |")


def test_a_table_without_rows() -> None:
    assert Table.of(left("a"), []).markdown() == ("| a |", "| :-- |")


def test_columns() -> None:
    assert (TABLE.headings, TABLE.right) == (("model", "speed", "memory"), (1, 2))
    assert TABLE.without_empty().headings == ("model", "speed")
    assert TABLE.without_first().rows == (("12.5", ""), ("3", ""))
    assert TABLE.select([2, 0]).rows == (("", "nano"), ("", "a|b"))
    assert TABLE.join(TABLE.select([1])).rows == (("nano", "12.5", "", "12.5"), ("a|b", "3", "", "3"))
    assert TABLE.select([1]).title == "both"


def test_csv_has_every_key_once() -> None:
    assert csv_text([{"a": 1, "b": "x,y"}, {"a": 2.5, "c": None}]) == 'a,b,c\n1,"x,y",\n2.5,,\n'
