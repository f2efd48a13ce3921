"""From a file to an engine: what is checked first, what is chosen, what is remembered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import runtime.llama
import runtime.llama.trial
from dsr.cli import app
from dsr.loading import load
from dsr.loading.load import OpenRequest, choose_context, choose_slots, opened
from dsr.models import library
from dsr.models.model import Model
from dsr.store import paths
from runtime.base.errors import Aborted, BadModelFile, DoesNotFit, Incompatible, UsageError
from runtime.base.run import Stop
from runtime.base.types import ByteCount, Message
from runtime.gguf.reader import read_card
from runtime.machine.host import Host
from runtime.machine.machine import free_for
from runtime.placement.memory import need
from tests.gguf_writer import llama_metadata, write

MIB = 1 << 20
AS_IT_COMES, ONE_THREAD = OpenRequest(), OpenRequest(threads=1)


def host(available: int, cores: int = 2) -> Host:
    return Host(
        platform="Test",
        cpu="Test CPU",
        cores=cores,
        threads=cores,
        features=(),
        memory_total=ByteCount(64 << 30),
        memory_available=ByteCount(available),
        memory_limited_by="the machine",
        disk_free=ByteCount(0),
    )


def local(path: Path) -> Model:
    return Model(path, (path,), path.name, str(path), ByteCount(path.stat().st_size))


def never(*_: object, **__: object) -> None:
    raise AssertionError("this must not happen")


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were tried in a child, which is left out."""
    tried: list[Path] = []
    monkeypatch.setattr(runtime.llama.trial, "try_in_child", tried.append)
    return tried


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The thread counts that were measured; the highest wins."""
    asked: list[tuple[int, ...]] = []

    def measure(backend: object, counts: tuple[int, ...]) -> int:
        asked.append(counts)
        return counts[-1]

    monkeypatch.setattr(load.threads, "measure", measure)
    monkeypatch.setattr(load.threads, "seconds_per_token", lambda backend: 0.01)
    monkeypatch.setattr(load, "probe", lambda: host(8 << 30))
    monkeypatch.setattr(load, "busy_cores", lambda: 0)
    return asked


def open_and_close(model: Model, request: OpenRequest = AS_IT_COMES) -> int:
    """The number of threads chosen."""
    with opened(model, request) as open_model:
        return open_model.threads


# The context


def test_by_default_it_is_the_training_context_where_that_fits(nano_path: Path) -> None:
    assert choose_context(read_card(nano_path), host(8 << 30), OpenRequest()) == 2048


def test_by_default_it_is_what_fits_where_the_training_context_does_not(nano_path: Path) -> None:
    card = read_card(nano_path)
    assert choose_context(card, host(102_500_000), OpenRequest()) == 768
    assert choose_context(card, host(102_500_000), OpenRequest(kv_type="q8_0")) == 1280


def test_samples_drawn_together_get_room_beyond_the_training_context(nano_path: Path) -> None:
    card, vote = read_card(nano_path), OpenRequest(slots=8, room=4096)
    assert choose_context(card, host(8 << 30), vote) == 8 * 2048
    assert choose_context(card, host(8 << 30), OpenRequest(slots=8, room=300)) == 2400
    assert choose_context(card, host(8 << 30), OpenRequest(slots=8)) == 2048
    assert choose_context(card, host(8 << 30), OpenRequest(slots=100, room=4096)) == 32768
    assert choose_context(card, host(8 << 30), OpenRequest(slots=200, room=4096)) == 200 * 256
    assert choose_context(card, host(8 << 30), OpenRequest(context=600, slots=8, room=4096)) == 600


def test_where_memory_is_short_they_share_what_there_is(nano_path: Path) -> None:
    card, vote = read_card(nano_path), OpenRequest(slots=8, room=4096)
    assert choose_context(card, host(129_900_000), vote) == 8192
    assert choose_context(card, host(102_500_000), vote) == 768
    assert choose_slots(768, vote) == 3
    assert (choose_slots(16384, vote), choose_slots(100, vote)) == (8, 1)


def test_one_of_several_samples_ends_at_the_training_context(nano_path: Path, trials: list[Path]) -> None:
    with opened(library.find("nano"), OpenRequest(threads=1, slots=2, room=4096)) as model:
        assert (model.backend.slots, model.backend.context, model.reach) == (2, 4096, 2048)
    with opened(library.find("nano"), OpenRequest(threads=1, context=4096)) as model:
        assert model.reach is None


def test_an_asked_context_is_taken_whatever_the_training_length(nano_path: Path) -> None:
    card = read_card(nano_path)
    assert choose_context(card, host(8 << 30), OpenRequest(context=300)) == 300
    assert choose_context(card, host(8 << 30), OpenRequest(context=100_000)) == 100_000


def test_an_asked_context_beyond_memory_is_refused_with_both_numbers(nano_path: Path) -> None:
    with pytest.raises(DoesNotFit) as caught:
        choose_context(read_card(nano_path), host(120 * MIB), OpenRequest(context=100_000))
    assert caught.value.message == (
        "a context of 100000 tokens needs 390.4 MiB beside the weights, and 108.0 MiB of memory is free"
    )
    assert caught.value.hint == "try --ctx-size 2048, or --kv-type q8_0, which halves it"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("context", [2**31, 2**32 + 512, 2**60])
def test_absurd_contexts_are_refused_at_once(nano_path: Path, context: int) -> None:
    with pytest.raises(DoesNotFit, match=f"a context of {context} tokens needs"):
        choose_context(read_card(nano_path), host(64 << 30), OpenRequest(context=context))


def test_a_model_larger_than_memory_is_refused_unless_a_context_forces_it(nano_path: Path) -> None:
    card = read_card(nano_path)
    with pytest.raises(DoesNotFit, match=r"needs 81\.6 MiB, and 72\.9 MiB of memory is free") as caught:
        choose_context(card, host(84_900_000), OpenRequest())
    assert caught.value.hint is not None
    assert "smaller quantization" in caught.value.hint
    assert choose_context(card, host(84_900_000), OpenRequest(context=256)) == 256
    with pytest.raises(DoesNotFit, match="a context of 2048 tokens needs"):
        choose_context(card, host(84_900_000), OpenRequest(context=2048))


def test_more_slots_need_more_memory(nano_path: Path) -> None:
    card = read_card(nano_path)
    one, many = (choose_context(card, host(101_500_000), OpenRequest(slots=slots)) for slots in (1, 128))
    assert one == 512
    assert many == 256


def test_drafts_need_more_memory(nano_path: Path) -> None:
    card = read_card(nano_path)
    barely = host(free_for(need(card, 768).total))
    assert [choose_context(card, barely, OpenRequest(draft=draft)) for draft in (None, "ngram")] == [768, 512]


def test_an_unknown_cache_type_is_refused(nano_path: Path) -> None:
    with pytest.raises(UsageError, match="'q3_0' is no type of a KV cache"):
        choose_context(read_card(nano_path), host(8 << 30), OpenRequest(kv_type="q3_0"))


def test_what_does_not_fit_is_refused_before_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "probe", lambda: host(10_000_000))
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    with pytest.raises(DoesNotFit):
        open_and_close(library.find("nano"))


# Opening


def test_the_embedded_model_opens_with_all_a_conversation_needs() -> None:
    with opened(library.find("nano"), ONE_THREAD) as model:
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
    with pytest.raises(Aborted), opened(library.find("nano"), ONE_THREAD, stop=stop, listen=lambda _: stop.set()):
        pass


def test_a_damaged_file_is_refused_before_any_native_code(
    tmp_path: Path, nano_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(nano_path.read_bytes()[:5000])
    monkeypatch.setattr(runtime.llama.trial, "try_in_child", never)
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    with pytest.raises(BadModelFile):
        open_and_close(local(path))


# The template


def test_a_model_without_a_template_is_refused_before_anything_is_tried_or_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "bare.gguf", llama_metadata(**{"tokenizer.chat_template": None}))
    monkeypatch.setattr(runtime.llama.trial, "try_in_child", never)
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    with pytest.raises(Incompatible, match="Tiny has no chat template") as caught:
        open_and_close(local(path))
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
        with opened(local(path), OpenRequest(threads=1, template="Q: {{ messages[0].content }} A:")) as model:
            assert model.chat_format.template.render(question) == "Q: why? A:"
    write(path, llama_metadata())
    with opened(local(path), ONE_THREAD) as model:
        assert model.chat_format.template.render(question) == "why?<think>"


# The trial in a child


def test_a_file_is_tried_once_for_its_header(tmp_path: Path, trials: list[Path]) -> None:
    first, other = (
        write(tmp_path / "first.gguf"),
        write(tmp_path / "other.gguf", llama_metadata(**{"general.name": "O"})),
    )
    copy = Path(shutil.copy(first, tmp_path / "copy.gguf"))
    for path in (first, first, copy, other, other):
        open_and_close(local(path), ONE_THREAD)
    assert trials == [first, other]


def test_a_file_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tried = write(tmp_path / "bad.gguf"), []

    def fail(path: Path) -> None:
        tried.append(path)
        raise BadModelFile(path, "opening it crashes the engine (SIGSEGV)")

    monkeypatch.setattr(runtime.llama.trial, "try_in_child", fail)
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    for _ in range(2):
        with pytest.raises(BadModelFile):
            open_and_close(local(path), ONE_THREAD)
    assert tried == [path, path]


def test_another_engine_tries_again(tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tiny.gguf")
    open_and_close(local(path), ONE_THREAD)
    monkeypatch.setattr(load, "_engine_version", lambda: "0.3.37")
    open_and_close(local(path), ONE_THREAD)
    assert trials == [path, path]


def test_the_embedded_model_is_not_tried(trials: list[Path]) -> None:
    open_and_close(library.find("nano"), ONE_THREAD)
    assert trials == []


# The threads


def test_the_measured_count_is_remembered(measured: list[tuple[int, ...]]) -> None:
    nano = library.find("nano")
    assert [open_and_close(nano), open_and_close(nano)] == [2, 2]
    assert measured == [(1, 2)]


def test_a_count_that_became_slow_is_measured_anew(
    measured: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.01, 0.029, 0.031, 0.01])  # found; still the same; three times slower: measured again, found
    monkeypatch.setattr(load.threads, "seconds_per_token", lambda backend: next(seconds))
    nano = library.find("nano")
    assert [open_and_close(nano) for _ in range(3)] == [2, 2, 2]
    assert measured == [(1, 2), (1, 2)]


def test_another_model_or_load_or_machine_is_measured_anew(
    tmp_path: Path, measured: list[tuple[int, ...]], trials: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = library.find("nano")
    open_and_close(nano)
    open_and_close(local(write(tmp_path / "tiny.gguf")))
    monkeypatch.setattr(load, "busy_cores", lambda: 1)
    open_and_close(nano)
    monkeypatch.setattr(load, "probe", lambda: host(8 << 30, cores=4))
    open_and_close(nano)
    assert measured == [(1, 2), (1, 2), (1,), (1, 2, 3)]
    assert len(json.loads((paths.cache_folder() / "threads.json").read_text())) == 4


def test_asked_threads_are_not_measured(measured: list[tuple[int, ...]]) -> None:
    assert open_and_close(library.find("nano"), OpenRequest(threads=1)) == 1
    assert measured == []


def test_given_threads_are_foretold_by_what_was_measured_with_as_many(
    measured: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int | None]] = []

    def known(host: object, card: object, busy: int, *, threads: int | None = None) -> None:
        asked.append((busy, threads))

    monkeypatch.setattr(load.this_machine, "known", known)
    monkeypatch.setattr(load, "busy_cores", lambda: 1)
    for request in (OpenRequest(), OpenRequest(threads=2), OpenRequest(threads=2, foretell=True)):
        open_and_close(library.find("nano"), request)
    # Who asks for no forecast does not wait for a look at what else runs.
    assert asked == [(1, None), (0, 2), (1, 2)]


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
    open_and_close(nano)
    good = json.loads(store.read_text())
    store.write_text(spoil(good), errors="surrogateescape")
    assert open_and_close(nano) == 2
    assert measured == [(1, 2), (1, 2)]
    assert json.loads(store.read_text()).keys() == good.keys()


def test_a_cache_that_cannot_be_written_is_harmless(
    tmp_path: Path, measured: list[tuple[int, ...]], trials: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    monkeypatch.setenv("DSR_HOME", str(blocked))
    path = write(tmp_path / "tiny.gguf")
    assert [open_and_close(local(path)), open_and_close(local(path))] == [2, 2]
    assert trials == [path, path]
    assert len(measured) == 2
    assert blocked.read_text() == "in the way"
