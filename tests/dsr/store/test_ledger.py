"""Rows in a file that survive a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.store.ledger import Entry, Ledger
from runtime.base.errors import UsageError, VerificationFailed


def key(row: Entry) -> tuple[str, int]:
    return row["id"], row["sample"]


def row(name: str, sample: int = 0, **more: object) -> dict[str, object]:
    return {"id": name, "sample": sample, **more}


def test_what_was_added_is_there_for_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "samples.jsonl"
    with Ledger(path, key) as ledger:
        ledger.add(row("a", 1, text="zwölf\n\ud800"))
        assert ("a", 1) in ledger and ("a", 0) not in ledger
    with Ledger(path, key) as ledger:
        assert len(ledger) == 1
        assert ledger.entry(("a", 1)) == {"id": "a", "sample": 1, "text": "zwölf\n\ud800"}
        ledger.add(row("b"))
    assert [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()] == ["a", "b"]


@given(st.data())
def test_a_kill_loses_the_torn_row_and_no_other(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("ledger") / "samples.jsonl"
    lines = [json.dumps(row("é" * number, number), ensure_ascii=False).encode() + b"\n" for number in range(4)]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = sum(len(b"".join(lines[: number + 1])) <= cut for number in range(4))
    with Ledger(path, key) as ledger:
        assert len(ledger) == kept
        ledger.add(row("new", 9))
    with Ledger(path, key) as ledger:
        assert len(ledger) == kept + 1
    assert path.read_bytes().startswith(b"".join(lines[:kept]) + b'{"id": "new"')


def test_the_last_row_of_a_name_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path / "s.jsonl", key) as ledger:
        ledger.add(row("a", text="first"))
        ledger.add(row("a", text="second"))
        assert ledger.entry(("a", 0))["text"] == "second"
    with Ledger(tmp_path / "s.jsonl", key) as ledger:
        assert ledger.entry(("a", 0))["text"] == "second"


@pytest.mark.parametrize("line", ["{", '{"id": "a"}', "[]", "7"])
def test_a_damaged_line_is_named_and_nothing_is_cut_off(tmp_path: Path, line: str) -> None:
    path = tmp_path / "s.jsonl"
    text = f'{{"id": "a", "sample": 0}}\n{line}\n{{"id": "b", "sample": 0}}\n'
    path.write_text(text)
    with pytest.raises(VerificationFailed, match="line 2 is damaged"):
        Ledger(path, key)
    assert path.read_text() == text


def test_only_one_process_may_add(tmp_path: Path) -> None:
    with Ledger(tmp_path / "s.jsonl", key), pytest.raises(UsageError, match="another dsr is writing here"):
        Ledger(tmp_path / "s.jsonl", key)
