"""The measured number of threads is remembered for as long as it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dsr.models import library
from dsr.store import paths
from tests.dsr.loading.loading import file_model, host, load_and_close
from tests.gguf_writer import write


def test_the_measured_count_is_remembered(measured: list[tuple[int, ...]]) -> None:
    nano = library.find("nano")
    assert [load_and_close(nano), load_and_close(nano)] == [2, 2]
    assert measured == [(1, 2)]


def test_a_count_that_became_slow_is_measured_anew(
    measured: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.01, 0.029, 0.031, 0.01])  # found; still the same; three times slower: measured again, found
    monkeypatch.setattr("runtime.machine.threads.seconds_per_token", lambda backend: next(seconds))
    nano = library.find("nano")
    assert [load_and_close(nano) for _ in range(3)] == [2, 2, 2]
    assert measured == [(1, 2), (1, 2)]


def test_another_model_or_load_or_machine_is_measured_anew(
    tmp_path: Path, measured: list[tuple[int, ...]], trials: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = library.find("nano")
    load_and_close(nano)
    load_and_close(file_model(write(tmp_path / "tiny.gguf")))
    monkeypatch.setattr("dsr.loading.load.busy_cores", lambda: 1)
    load_and_close(nano)
    monkeypatch.setattr("dsr.loading.load.probe", lambda: host(8 << 30, cores=4))
    load_and_close(nano)
    assert measured == [(1, 2), (1, 2), (1,), (1, 2, 3)]
    assert len(json.loads((paths.cache_folder() / "threads.json").read_text())) == 4


def test_asked_threads_are_not_measured(measured: list[tuple[int, ...]]) -> None:
    assert load_and_close(library.find("nano"), threads=1) == 1
    assert measured == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda known: "no json",
        lambda known: "[1, 2]",
        lambda known: json.dumps(dict.fromkeys(known, 2)),
        lambda known: json.dumps({key: {"threads": 0, "seconds": 9.0} for key in known}),
        lambda known: json.dumps({key: {"threads": 99, "seconds": 9.0} for key in known}),
        lambda known: "\udcff",
    ],
    ids=["no json", "a list", "no table", "zero", "more than there are", "no text"],
)
def test_a_spoilt_memory_of_threads_is_replaced(
    measured: list[tuple[int, ...]], spoil: Callable[[dict[str, int]], str]
) -> None:
    nano, store = library.find("nano"), paths.cache_folder() / "threads.json"
    load_and_close(nano)
    good = json.loads(store.read_text())
    store.write_text(spoil(good), errors="surrogateescape")
    assert load_and_close(nano) == 2
    assert measured == [(1, 2), (1, 2)]
    assert json.loads(store.read_text()).keys() == good.keys()


def test_a_cache_that_cannot_be_written_is_harmless(
    tmp_path: Path, measured: list[tuple[int, ...]], trials: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    monkeypatch.setenv("DSR_HOME", str(blocked))
    path = write(tmp_path / "tiny.gguf")
    assert [load_and_close(file_model(path)), load_and_close(file_model(path))] == [2, 2]
    assert trials == [path, path]
    assert len(measured) == 2
    assert blocked.read_text() == "in the way"
