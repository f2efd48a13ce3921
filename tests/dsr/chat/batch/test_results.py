"""The results of a batch: their order, and what a stop or a full disk leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsr.chat.batch.results import FileResults, PrintedResults
from runtime.base.errors import DsrError, UsageError

HEADS: dict[str, dict[str, Any]] = {
    "a-1": {"number": 1, "id": None}, "b-1": {"number": 2, "id": "two"}, "c-1": {"number": 5, "id": None},
}  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_a_finished_file_has_the_order_of_the_questions(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with FileResults(out, HEADS) as results:
        for key in ("c-1", "a-1", "b-1"):
            results.add(key, {"answer": key.upper()})
        assert not out.exists()
        results.finish()
    assert lines(out) == [
        {"number": 1, "id": None, "key": "a-1", "answer": "A-1"},
        {"number": 2, "id": "two", "key": "b-1", "answer": "B-1"},
        {"number": 5, "id": None, "key": "c-1", "answer": "C-1"},
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]


def test_what_was_answered_before_a_kill_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with FileResults(out, HEADS) as results:
        results.add("c-1", {"answer": "C"})
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes() + b'{"key": "b-1", "answer": "cut o')
    again = FileResults(out, HEADS)
    assert again.done == {"c-1": {"key": "c-1", "answer": "C"}}
    with again:
        again.add("a-1", {"answer": "A"})
        again.add("b-1", {"answer": "B"})
        again.finish()
    assert [each["answer"] for each in lines(out)] == ["A", "B", "C"]


def test_questions_can_be_added_to_a_finished_batch(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with FileResults(out, {"a-1": HEADS["a-1"]}) as results:
        results.add("a-1", {"answer": "A"})
        results.finish()
    more = FileResults(out, {"b-1": {"number": 1, "id": None}, "a-1": {"number": 2, "id": "late"}})
    assert [*more.done] == ["a-1"]
    with more:
        more.add("b-1", {"answer": "B"})
        more.finish()
    assert [(each["number"], each["id"], each["answer"]) for each in lines(out)] == [(1, None, "B"), (2, "late", "A")]


def test_a_file_of_another_batch_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with FileResults(out, HEADS) as results:
        for key in HEADS:
            results.add(key, {"answer": ""})
        results.finish()
    with pytest.raises(UsageError, match="2 of its results belong to other questions or other settings"):
        FileResults(out, {"a-1": HEADS["a-1"]})
    out.write_text("my notes\n")
    with pytest.raises(UsageError, match="this file has no results of a batch"):
        FileResults(out, HEADS)
    assert out.read_text() == "my notes\n"


def test_nothing_is_left_of_a_batch_without_results(tmp_path: Path) -> None:
    with FileResults(tmp_path / "out.jsonl", HEADS):
        pass
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DsrError, match="cannot be written: No such file or directory"):
        FileResults(tmp_path / "none" / "out.jsonl", HEADS).__enter__()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_keeps_what_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with FileResults(out, HEADS) as results:
        results.add("a-1", {"answer": "A"})
        full = Path("/dev/full").open("ab")  # noqa: SIM115
        results._file, kept = full, results._file
        assert kept is not None
        kept.close()
        with pytest.raises(DsrError, match=r"No space left on device; .*out.jsonl.partial keeps 1 results"):
            results.add("b-1", {"answer": "B"})
    assert [*FileResults(out, HEADS).done] == ["a-1"]


def test_results_are_printed_as_soon_as_those_before_are_there() -> None:
    shown: list[dict[str, Any]] = []
    with PrintedResults(shown.append, HEADS) as results:
        results.add("b-1", {"answer": "B"})
        assert shown == []
        results.add("a-1", {"answer": "A"})
        assert [each["answer"] for each in shown] == ["A", "B"]
        results.add("c-1", {"answer": "C"})
        results.finish()
    assert [each["number"] for each in shown] == [1, 2, 5]


def test_a_stop_prints_the_results_that_waited() -> None:
    shown: list[dict[str, Any]] = []
    with PrintedResults(shown.append, HEADS) as results:
        results.add("c-1", {"answer": "C"})
    assert [each["answer"] for each in shown] == ["C"]
