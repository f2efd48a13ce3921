"""Which experts a conversation gets: the task of its question, the file, and when all experts are kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dsr.experts.profile import profile_store
from dsr.experts.selection import Selector
from dsr.loading.options import ExpertsRequest
from dsr.models.library import find
from dsr.models.model import Model
from quant.experts.profile import router_digest
from runtime.base.errors import EngineFailed
from runtime.base.events import Event, Notice
from runtime.base.run import Run
from runtime.gguf.reader import read_card

SUM, BACKWARDS = "What is 347 + 586?", "Reverse the word 'house'."
RUN = Run(threads=1)


@pytest.mark.usefixtures("profiled")
def test_a_file_is_made_once() -> None:
    with Selector(find("nano"), ExpertsRequest("addsub", "7")) as selector:
        first = selector.select(None, RUN).model.path
        made = first.stat().st_ino
        os.utime(first, ns=(1, 1))
        again = selector.select(None, RUN).model.path
    assert again == first and again.stat().st_ino == made
    assert again.stat().st_mtime_ns > 1  # it was used
    assert read_card(first).experts == 7


@pytest.mark.usefixtures("profiled")
def test_without_room_all_experts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.experts.pruned_cache.MAX_DISK_SHARE", 0)
    with Selector(find("nano"), ExpertsRequest("addsub", "9")) as selector:
        found = selector.select(None, RUN)
    assert (found.kept, found.model) == (16, find("nano"))
    assert found.why.startswith("no room for the file with 9: ")


@pytest.mark.usefixtures("profiled")
def test_the_whole_model_is_read_where_its_first_layers_do_not_open_alone(
    monkeypatch: pytest.MonkeyPatch, nano_path: Path, tmp_path: Path
) -> None:
    tried = []

    def refuse(model: Model, run: Run) -> None:
        tried.append(model.path.name)
        if model.path.name.endswith("-scout.gguf"):
            raise EngineFailed("missing tensor")

    monkeypatch.setattr("dsr.experts.selection.try_once", refuse)
    (tmp_path / "other.gguf").symlink_to(nano_path)
    with Selector(find(str(tmp_path / "other.gguf")), ExpertsRequest()) as selector:
        assert selector.match(SUM, RUN).task == "addsub"
    assert len(tried) == 2 and tried[1] == "other.gguf"


@pytest.mark.usefixtures("profiled")
def test_a_long_question_is_read_to_its_end() -> None:
    with Selector(find("nano"), ExpertsRequest()) as selector:
        assert selector.match("apples and pears, " * 2000 + SUM, RUN).task is None


def test_a_damaged_profile_leaves_the_others(
    profiled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(profiled_folder / "data", tmp_path / "copy" / "data")
    monkeypatch.setenv("DSR_HOME", str(tmp_path / "copy"))
    profile_store().path(router_digest(find("nano").path), "reverse").write_bytes(b"GGUF, they said")
    heard: list[Event] = []
    with Selector(find("nano"), ExpertsRequest(keep="8")) as selector:
        assert selector.select(BACKWARDS, Run(listen=heard.append, threads=1)).task is None
        assert selector.select(SUM, Run(listen=heard.append, threads=1)).task == "addsub"
    [told] = [event.text for event in heard if isinstance(event, Notice) and "ignored: " in event.text]
    assert told.startswith("ignored: ") and "reverse.gguf" in told
