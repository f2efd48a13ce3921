"""Values by key in a file."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from runtime.base.keyed_cache import KeyedCache, finite


def opened(path: Path) -> KeyedCache[float]:
    return KeyedCache(path, finite)


def test_values_are_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    cache = opened(path)
    assert cache.get("a") is None
    cache.put({"a": 1.5, "b": 2.0})
    cache.put({"b": 3.0})
    again = opened(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (1.5, 3.0, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'"a"',
        b'{"a": "x"}',
        b'{"a": "1"}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": {"b": 1}}',
        b"[" * 100_000,
    ],
)
def test_content_that_cannot_be_read_is_absent_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "figures.json"
    path.write_bytes(content)
    cache = opened(path)
    assert cache.get("a") is None
    cache.put({"a": 1.0})
    assert opened(path).get("a") == 1.0


def test_a_file_that_cannot_be_written_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = opened(tmp_path / "file" / "figures.json")
    cache.put({"a": 1.0})
    assert cache.get("a") == 1.0
    assert (tmp_path / "file").read_text() == "in the way"


def test_two_caches_of_one_file_keep_each_others_values(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "figures.json"), opened(tmp_path / "figures.json")
    one.put({"a": 1.0})
    other.put({"b": 2.0})
    assert (one.get("b"), other.get("a")) == (2.0, 1.0)


def _put_many(path: Path, letter: str) -> None:
    cache = opened(path)
    for count in range(20):
        cache.put({f"{letter}{count}": float(count)})


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_many, args=(path, letter)) for letter in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cache = opened(path)
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]
    assert all(cache.get(f"{letter}{count}") == count for letter in "ab" for count in range(20))
