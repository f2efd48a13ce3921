"""From a model to an engine: what is checked first, and what a loaded model knows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import runtime.llama
from dsr.cli import app
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models import library
from runtime.base.errors import Aborted, BadModelFile, DoesNotFit, EngineFailed, Incompatible
from runtime.base.events import Notice
from runtime.base.run import Run, Stop
from runtime.base.types import Message
from runtime.from_disk.reader import ReadFile
from runtime.gguf.card import ModelCard
from tests.dsr.loading.loading import DEFAULTS, ONE_THREAD, file_model, host, load_and_close, never
from tests.gguf_writer import llama_metadata, write


def test_the_embedded_model_opens_with_all_a_conversation_needs() -> None:
    with load(library.find("nano"), DEFAULTS, ONE_THREAD) as model:
        assert model.backend.context == 2048
        assert model.backend.slots == 1
        assert model.threads == 1
        assert model.markers is not None
        assert (model.markers.open, model.markers.close) == ("<think>", "</think>")
        assert model.chat_format.template.bos == "<｜begin▁of▁sentence｜>"
        assert model.load_seconds > 0
        [tag] = model.backend.tokenize("<think>")
        assert model.backend.piece(tag) == b"<think>"


def test_a_stop_while_loading_aborts() -> None:
    stop = Stop()
    with pytest.raises(Aborted), load(library.find("nano"), DEFAULTS, Run(stop, lambda _: stop.set(), 1)):
        pass


def test_a_damaged_file_is_refused_before_any_native_code(
    tmp_path: Path, nano_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(nano_path.read_bytes()[:5000])
    monkeypatch.setattr("dsr.loading.tried_files.try_file", never)
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    with pytest.raises(BadModelFile):
        load_and_close(file_model(path))


def test_a_model_without_a_template_is_refused_before_anything_is_tried_or_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "bare.gguf", llama_metadata(**{"tokenizer.chat_template": None}))
    monkeypatch.setattr("dsr.loading.tried_files.try_file", never)
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    with pytest.raises(Incompatible, match="Tiny has no chat template") as caught:
        load_and_close(file_model(path))
    assert caught.value.exit_code == 7
    result = CliRunner().invoke(app, ["chat", str(path), "hi there", "--no-log"])
    assert result.exit_code == 7
    assert "error: Tiny has no chat template" in result.stderr
    assert "--template FILE" in result.stderr
    assert result.stdout == ""


def test_a_given_template_replaces_the_model_s_own(tmp_path: Path, trials: list[Path]) -> None:
    question = [Message("user", "why?")]
    for own in ("{{ messages[0].content }}<think>", None):
        path = write(tmp_path / "tiny.gguf", llama_metadata(**{"tokenizer.chat_template": own}))
        with load(file_model(path), LoadOptions(template="Q: {{ messages[0].content }} A:"), Run(threads=1)) as model:
            assert model.chat_format.template.render(question) == "Q: why? A:"
    write(path, llama_metadata())
    with load(file_model(path), DEFAULTS, ONE_THREAD) as model:
        assert model.chat_format.template.render(question) == "why?<think>"


def test_one_of_several_samples_ends_at_the_training_context(nano_path: Path, trials: list[Path]) -> None:
    with load(library.find("nano"), LoadOptions(slots=2, reply_tokens=4096), Run(threads=1)) as model:
        assert (model.backend.slots, model.backend.context, model.backend.longest) == (2, 4096, 2048)
    with load(library.find("nano"), LoadOptions(context=512), Run(threads=1)) as model:
        assert model.backend.longest == 512


def test_what_does_not_fit_is_refused_before_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.loading.load.probe", lambda: host(10_000_000))
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    with pytest.raises(DoesNotFit):
        load_and_close(library.find("nano"))


def test_given_threads_are_foretold_by_what_was_measured_with_as_many(
    measured: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int | None]] = []

    def known(host: object, card: object, busy: int, *, threads: int | None = None) -> None:
        asked.append((busy, threads))

    monkeypatch.setattr("dsr.loading.machine.cached_machine", known)
    monkeypatch.setattr("dsr.loading.load.busy_cores", lambda: 1)
    for options, threads in ((DEFAULTS, None), (DEFAULTS, 2), (LoadOptions(predict=True), 2)):
        load_and_close(library.find("nano"), options, threads)
    # Who asks for no forecast does not wait for a look at what else runs.
    assert asked == [(1, None), (0, 2), (1, 2)]


def test_a_file_is_tried_once_by_whatever_name(tmp_path: Path, trials: list[Path]) -> None:
    first, other = (
        write(tmp_path / "first.gguf"),
        write(tmp_path / "other.gguf", llama_metadata(**{"general.name": "O"})),
    )
    link = tmp_path / "link.gguf"
    link.symlink_to(first)
    for path in (first, first, link, other, other):
        load_and_close(file_model(path), threads=1)
    assert trials == [first, other]


def test_a_file_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tried = write(tmp_path / "bad.gguf"), []

    def fail(card: ModelCard, *_: object, **__: object) -> None:
        tried.append(card.path)
        raise EngineFailed(f"{card.path}: it crashes the engine (SIGSEGV)")

    monkeypatch.setattr("dsr.loading.tried_files.try_file", fail)
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    for _ in range(2):
        with pytest.raises(EngineFailed):
            load_and_close(file_model(path), threads=1)
    assert tried == [path, path]


def test_weights_that_changed_are_tried_again_and_another_cache_as_well(tmp_path: Path, trials: list[Path]) -> None:
    path = write(tmp_path / "tiny.gguf")
    load_and_close(file_model(path), threads=1)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    for options in (DEFAULTS, LoadOptions(kv_type="bf16"), DEFAULTS):
        load_and_close(file_model(path), options, threads=1)
    assert trials == [path] * 3


def test_weights_that_were_replaced_with_their_old_time_are_tried_again(tmp_path: Path, trials: list[Path]) -> None:
    """As `tar`, `cp -p` and `rsync -a` do it."""
    path = write(tmp_path / "tiny.gguf")
    load_and_close(file_model(path), threads=1)
    written = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    os.utime(path, ns=(written, written))
    load_and_close(file_model(path), threads=1)
    assert trials == [path, path]


def test_what_does_not_fit_is_not_tried(tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.loading.load.probe", lambda: host(10_000_000))
    with pytest.raises(DoesNotFit):
        load_and_close(file_model(write(tmp_path / "tiny.gguf")))
    assert trials == []


def test_another_engine_tries_again(tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tiny.gguf")
    load_and_close(file_model(path), threads=1)
    monkeypatch.setattr("runtime.llama.ENGINE_VERSION", "0.3.37")
    load_and_close(file_model(path), threads=1)
    assert trials == [path, path]


def test_the_embedded_model_is_not_tried(trials: list[Path]) -> None:
    load_and_close(library.find("nano"), threads=1)
    assert trials == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.ggml.pre": "next9"}, "does not know its pre-tokenizer"),
        ({"general.type": "adapter"}, "a LoRA adapter, not a model"),
    ],
)
def test_what_the_header_tells_is_said_before_anything_is_tried(
    changes: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "next.gguf", llama_metadata(**changes, **{"tokenizer.chat_template": None}))
    monkeypatch.setattr("dsr.loading.load.try_model", never)
    with pytest.raises(Incompatible, match=said):
        load_and_close(file_model(path))


@pytest.mark.parametrize("direct", [True, False])
def test_a_file_system_without_direct_reads_is_told(
    direct: bool, trials: list[Path], measured: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsr.loading.load.probe", lambda: host(84 << 20))  # too little for nano as a whole
    if not direct:
        monkeypatch.setattr(ReadFile, "_ask_for_direct", lambda *_: None)
    heard: list[str] = []
    run = Run(listen=lambda event: heard.append(event.text) if isinstance(event, Notice) else None, threads=1)
    with load(library.find("nano"), DEFAULTS, run) as loaded:
        assert loaded.disk_use is not None and loaded.from_disk is not None
    told = [text for text in heard if text.startswith("the file system of the model has no direct reads")]
    assert len(told) == (not direct)
