"""The real engine with weights on the disk computes as it does with all of them in memory."""

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.convert.conversion import source_of
from quant.recipe.recipe import load, plan
from quant.sources.checkpoint import open_checkpoint
from quant.write.execute import quantize
from runtime.base.errors import Aborted, DoesNotFit, EngineFailed, Incompatible, WeightsLost
from runtime.base.events import Progress
from runtime.base.run import Run, Stop
from runtime.engine.backend import Batch, PassProgress
from runtime.from_disk.units import FromDisk, resident, units_of
from runtime.gguf.reader import read_card
from runtime.llama import LlamaBackend, OpenOptions, reserved_buffer, streamed_backend, streamed_model
from runtime.llama.defaults import LOAD_DIRECT, LOAD_NONE
from runtime.llama.returned_memory import give_back
from runtime.llama.streamed_backend import StreamedBackend
from tests.quant.tiny_models import make_tiny

ALL = 1 << 30
UNIT = 208896 + 6 * 4096  # an expert of nano with its whole pages, at most
OPTIONS = OpenOptions(256)
TEXT = [1, 45, 67, 89, 23, 45, 67, 12, 99, 30, 31, 32]


def on_disk(path: Path, memory: int, layers: tuple[int, ...] = ()) -> StreamedBackend:
    return StreamedBackend(path, replace(OPTIONS, from_disk=FromDisk(memory, layers)))


def rows(backend: LlamaBackend, tokens: list[int]) -> list[NDArray[np.float32]]:
    """The logits after each token, read one by one."""
    found = []
    backend.trim(0, 0)
    for position, token in enumerate(tokens):
        backend.decode(Batch([token], [position], [0], [0]))
        found.append(backend._logits(0).copy())
    return found


def test_logits_do_not_depend_on_the_memory(nano_path: Path) -> None:
    with on_disk(nano_path, ALL) as whole, on_disk(nano_path, 12 * UNIT) as part:
        expected, found = rows(whole, TEXT), rows(part, TEXT)
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
        assert whole.disk_use.bytes_read < part.disk_use.bytes_read
        assert part.disk_use.chosen == 12 * 3 * 4  # tokens, layers, experts of each token
        assert part.disk_use.passes == 12


def test_moves_of_memory_leave_mappings_for_the_rest(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    monkeypatch.setattr(reserved_buffer, "_most_moved", lambda: 4)
    with on_disk(nano_path, ALL) as whole, on_disk(nano_path, 12 * UNIT) as part:
        expected = rows(whole, TEXT[:6])
        rows(part, TEXT)
        before = mappings()
        found = [rows(part, TEXT[:6]) for _ in range(3)]
        assert len(part._streamed.buffer._moved) <= 4 and mappings() < before + 40
    for each in found:
        assert all(np.array_equal(a, b) for a, b in zip(expected, each, strict=True))


def test_a_model_that_fails_to_open_leaves_no_reading_thread(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise EngineFailed("no room for a context")

    monkeypatch.setattr(StreamedBackend, "_new_context", fails)
    with pytest.raises(EngineFailed, match="no room"):
        on_disk(nano_path, ALL)
    assert not [each for each in threading.enumerate() if each.name.startswith("from-disk")]


def test_logits_are_those_of_the_model_in_memory(nano_path: Path) -> None:
    with on_disk(nano_path, 12 * UNIT) as streamed, LlamaBackend(nano_path, OPTIONS) as mapped:
        for found, expected in zip(rows(streamed, TEXT), rows(mapped, TEXT), strict=True):
            assert np.abs(found - expected).max() < 1e-3


def test_a_layer_may_choose_twice_and_its_weights_tell_the_choice_that_counts(tmp_path: Path) -> None:
    """GroveMoE chooses experts, and then as many of its chunk experts, under the same name."""
    path = converted("GroveMoeForCausalLM", tmp_path)
    units = units_of(read_card(path))
    part = units.bytes // 2 + (6 * 4096) * units.count
    with on_disk(path, ALL) as whole, on_disk(path, part) as half:
        expected, found = rows(whole, TEXT), rows(half, TEXT)
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
        # tokens, layers, experts of each token; the chunk experts stay in memory
        assert half.disk_use.chosen == 12 * 2 * read_card(path).experts_used
        assert not [stack for stack in units.stacks if "chexps" in stack.name]
    with LlamaBackend(path, OPTIONS) as mapped:
        for one, other in zip(expected, rows(mapped, TEXT), strict=True):
            assert np.abs(one - other).max() < 1e-3


def test_weights_without_a_choice_before_them_are_an_error(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_disk(nano_path, 9 * UNIT) as streamed:
        monkeypatch.setattr(streamed_model, "_EXPERTS_OF", 1)  # its hidden states, as if they were the experts
        with pytest.raises(EngineFailed, match="chose the experts of a layer in an unknown way"):
            rows(streamed, TEXT)


def converted(name: str, folder: Path) -> Path:
    """A tiny random model of one class, as `dsr quantize` converts it."""
    make_tiny(name, folder / "source")
    source = source_of(open_checkpoint(folder / "source"), keep_mtp=False)
    quantize(source, plan(load("f32"), source), folder / "tiny.gguf", Run(threads=1))
    return folder / "tiny.gguf"


def test_dense_layers_may_be_on_the_disk(hybrid_path: Callable[[str], Path]) -> None:
    path = hybrid_path("gemma3")
    with on_disk(path, ALL, (0, 1)) as streamed, LlamaBackend(path, OPTIONS) as mapped:
        for found, expected in zip(rows(streamed, TEXT), rows(mapped, TEXT), strict=True):
            assert np.abs(found - expected).max() < 1e-3


def test_a_prompt_uses_as_many_tokens_at_once_as_their_experts_fit(nano_path: Path) -> None:
    with on_disk(nano_path, ALL) as whole, on_disk(nano_path, 9 * UNIT) as part:
        assert (whole.batch_size, part.batch_size) == (256, 2)


PROMPT = [1 + (7 * n) % 600 for n in range(2000)]


def prompt_logits(backend: LlamaBackend, tokens: list[int]) -> NDArray[np.float32]:
    """The logits behind a prompt that is read in passes as long as the backend takes."""
    backend.trim(0, 0)
    size = backend.batch_size
    for begin in range(0, len(tokens), size):
        piece = tokens[begin : begin + size]
        last = [len(piece) - 1] if begin + size >= len(tokens) else []
        backend.decode(Batch(piece, [*range(begin, begin + len(piece))], [0] * len(piece), last))
    return backend._logits(len(piece) - 1).copy()


def test_long_passes_give_the_same_logits_and_read_each_expert_once(nano_path: Path) -> None:
    found, read = [], []
    for rows in (512, 2048):
        options = OpenOptions(2048, from_disk=FromDisk(32 * UNIT), rows=rows)
        with StreamedBackend(nano_path, options) as backend:
            assert backend.batch_size == rows
            found.append(prompt_logits(backend, PROMPT))
            read.append(backend.disk_use.bytes_read)
    assert np.abs(found[0] - found[1]).max() < 1e-3
    assert read[1] <= 48 * UNIT < 72 * UNIT < read[0]


def test_buffers_and_weights_share_memory(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """During a long pass fewer experts are in memory; behind it, its buffers are gone, and more experts come."""
    given: list[int] = []

    def counted(address: int, size: int) -> None:
        given.append(size)
        give_back(address, size)

    monkeypatch.setattr(streamed_model, "give_back", counted)
    shared, row = 48 * UNIT, 36 * UNIT // 1000
    options = OpenOptions(2048, from_disk=FromDisk(shared, row_bytes=row), rows=2048)
    with StreamedBackend(nano_path, options) as backend, LlamaBackend(nano_path, OpenOptions(2048)) as mapped:
        assert backend.batch_size == 512  # a thousand tokens leave room for one layer, but not for the next one
        expected, found = prompt_logits(mapped, PROMPT[:1024]), prompt_logits(backend, PROMPT[:1024])
        weights = backend._streamed.weights
        assert weights.most == shared - 512 * row and weights.held <= weights.most
        assert len(given) == 2 and given[0] == given[1] > 10 << 20
        assert np.abs(found - expected).max() < 1e-3
        for position, token in enumerate(TEXT, 1024):
            for each in (backend, mapped):
                each.decode(Batch([token], [position], [0], [0]))
            assert np.abs(backend._logits(0) - mapped._logits(0)).max() < 1e-3
        assert weights.most == shared - row and len(given) == 2


@pytest.mark.parametrize("kind", ["gemma3", "mamba", "qwen35", "lfm2"])
def test_nothing_in_the_buffers_is_needed_by_a_later_pass(hybrid_path: Callable[[str], Path], kind: str) -> None:
    path = hybrid_path(kind)
    options = OpenOptions(2048, from_disk=FromDisk(ALL, (0, 1), row_bytes=4 << 20), rows=512)
    with StreamedBackend(path, options) as streamed, LlamaBackend(path, OpenOptions(2048)) as mapped:
        tokens = [token % 250 for token in PROMPT[:100]]
        assert np.abs(prompt_logits(streamed, tokens) - prompt_logits(mapped, tokens)).max() < 1e-3
        for position, token in enumerate(tokens[:5], 100):
            for each in (streamed, mapped):
                each.decode(Batch([token], [position], [0], [0]))
            assert np.abs(streamed._logits(0) - mapped._logits(0)).max() < 1e-3


def test_a_cut_file_ends_the_pass_with_an_error(nano_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "nano.gguf"
    shutil.copy(nano_path, path)
    with on_disk(path, 9 * UNIT) as streamed:
        rows(streamed, TEXT[:2])
        os.truncate(path, 1 << 20)
        with pytest.raises(WeightsLost, match=r"nano\.gguf: the file changed"):
            rows(streamed, TEXT)


def test_a_file_that_is_overwritten_while_it_is_computed_from_ends_that_pass(nano_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "nano.gguf"
    shutil.copy(nano_path, path)
    with on_disk(path, 9 * UNIT) as streamed:
        rows(streamed, TEXT[:2])
        wait = streamed._streamed.weights.wait

        def wait_and_write() -> bool:
            os.utime(path, ns=(1, 1))
            return wait()

        streamed._streamed.weights.wait = wait_and_write  # type: ignore[method-assign]
        streamed.trim(0, 0)
        with pytest.raises(WeightsLost, match="the file changed"):
            streamed.decode(Batch(TEXT[:1], [0], [0], [0]))


def test_a_file_that_another_one_takes_the_name_of_is_read_to_the_end(nano_path: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "nano.gguf", tmp_path / "other"
    shutil.copy(nano_path, path)
    other.write_bytes(b"another model")
    with on_disk(path, 9 * UNIT) as streamed:
        expected = rows(streamed, TEXT)
        other.rename(path)
        assert all(np.array_equal(a, b) for a, b in zip(rows(streamed, TEXT), expected, strict=True))


def test_a_long_pass_tells_how_many_layers_are_computed(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_model, "_SECONDS_BETWEEN", 0.0)
    heard: list[float] = []
    options = replace(OPTIONS, from_disk=FromDisk(ALL))
    with StreamedBackend(nano_path, options, progress=PassProgress(heard.append)) as backend:
        backend.decode(Batch(TEXT, [*range(len(TEXT))], [0] * len(TEXT)))
        assert heard == [0, 1 / 3, 2 / 3]
        assert backend.chunk_size == backend.batch_size == 256


@pytest.mark.parametrize(("mode", "remedy"), [("0\n", "ulimit -v unlimited"), ("2\n", "vm.overcommit_memory=0")])
def test_memory_that_the_system_does_not_give_is_told(
    mode: str, remedy: str, nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "overcommit").write_text(mode)
    monkeypatch.setattr(reserved_buffer, "_OVERCOMMIT", tmp_path / "overcommit")

    def refuse(*given: object, **options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("runtime.llama.reserved_buffer.mmap.mmap", refuse)
    with pytest.raises(DoesNotFit, match=r"does not reserve .* MiB of address space.*Cannot allocate memory") as told:
        on_disk(nano_path, ALL)
    assert remedy in (told.value.hint or "")


def test_where_two_copies_fit_the_rest_comes_through_the_cache_and_a_stop_ends_it(
    nano_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = LlamaBackend._model_params

    def params(self: LlamaBackend, **given: Any) -> Any:
        modes.append(given["load_mode"])
        return real(self, **given)

    monkeypatch.setattr(LlamaBackend, "_model_params", params)
    options = replace(OPTIONS, from_disk=FromDisk(ALL))
    resident_bytes = sum(each.size for each in resident(read_card(nano_path), units_of(read_card(nano_path))))
    heard: list[object] = []
    found = []
    for free in (2 * resident_bytes, 2 * resident_bytes - 1):
        with StreamedBackend(nano_path, options, Run(listen=heard.append), lambda free=free: free) as backend:
            found.append(rows(backend, TEXT))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    assert modes == [LOAD_NONE, LOAD_DIRECT]
    assert Progress("loading", "nano.gguf", 100, 100, "percent") in heard
    stop = Stop()
    stop.set()
    with pytest.raises(Aborted, match="stopped while loading"):
        StreamedBackend(nano_path, options, Run(stop), lambda: ALL)
    assert len(modes) == 2 and not stop.wanted


def test_a_model_that_rests_gives_memory_back_that_others_need(
    nano_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_backend, "_LOOK", 0.01)
    looks, memory = threading.Semaphore(0), [ALL]

    def look() -> int:
        looks.release()
        return memory[0] - (backend._streamed.weights.held if len(opened) else 0)

    opened: list[StreamedBackend] = []
    options = replace(OPTIONS, from_disk=FromDisk(ALL, spare=10 * UNIT))
    with StreamedBackend(nano_path, options, free=look) as backend:
        opened.append(backend)
        weights, expected = backend._streamed.weights, rows(backend, TEXT)
        held = weights.held
        memory[0] = held + 7 * UNIT
        while looks.acquire(blocking=False):
            pass
        for _ in range(3):  # the first one may have looked before, and the last one may still look
            assert looks.acquire(timeout=20)
        assert held - 4 * UNIT < weights.held <= held - 3 * UNIT
        memory[0] = ALL
        assert all(np.array_equal(a, b) for a, b in zip(rows(backend, TEXT), expected, strict=True))
    assert not [each for each in threading.enumerate() if each.name.startswith("from-disk")]


def test_closing_gives_the_memory_back(nano_path: Path) -> None:
    with on_disk(nano_path, ALL) as streamed:
        rows(streamed, TEXT)
        region = streamed._streamed.buffer.region
        assert any(region[:])
    assert not any(region[:])


def test_a_stop_ends_the_pass(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_disk(nano_path, 9 * UNIT) as streamed:
        rows(streamed, TEXT[:2])
        monkeypatch.setattr(streamed._streamed.weights, "wait", lambda: False)
        with pytest.raises(Aborted):
            rows(streamed, TEXT)


def test_a_layer_without_its_weights_is_an_error(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_disk(nano_path, 9 * UNIT) as streamed:
        monkeypatch.setattr(streamed._streamed, "_asked", lambda address: False)
        with pytest.raises(EngineFailed, match="without saying which of its weights it needs"):
            rows(streamed, TEXT)


def test_what_reads_weights_in_another_way_is_refused(nano_path: Path) -> None:
    with pytest.raises(Incompatible, match="without MTP"):
        StreamedBackend(nano_path, replace(OPTIONS, from_disk=FromDisk(ALL), mtp=True))
