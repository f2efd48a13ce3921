"""The native backend with the real engine and the embedded model."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from runtime.base.errors import EngineFailed, UsageError
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.gguf.rope import Yarn
from runtime.llama import ENGINE_VERSION, LlamaBackend, OpenOptions, engine_info
from runtime.llama.bindings import native
from tests.fakes import logprobs
from tests.gguf_writer import write
from tests.runtime.native_engine import GREEDY, ROOT, WORD, batch, request, row_of, small

# The pin


def test_the_engine_is_the_one_that_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"llama-cpp-python=={ENGINE_VERSION}" in project["dependencies"]
    assert version("llama-cpp-python") == ENGINE_VERSION == engine_info().version


@pytest.mark.skipif(sys.maxsize < 2**32, reason="sizes of 64-bit machines")
def test_the_structures_have_the_sizes_of_the_pinned_release() -> None:
    assert ctypes.sizeof(native.llama_model_params) == 80
    assert ctypes.sizeof(native.llama_context_params) == 160
    assert ctypes.sizeof(native.llama_batch) == 56
    assert ctypes.sizeof(native.llama_sampler_chain_params) == 1
    assert ctypes.sizeof(native.llama_model_quantize_params) == 64


def test_the_defaults_of_a_model_are_those_of_the_pinned_release() -> None:
    params = native.llama_model_default_params()
    numbers = {name: getattr(params, name) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode")}
    # -1: all layers on the GPU where there is one; -1: mapped where the platform can.
    assert numbers == {"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1}
    flags = ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp")
    assert [name for name in flags if getattr(params, name)] == ["use_extra_bufts"]
    assert not params.devices
    assert not params.kv_overrides


def test_the_defaults_of_a_context_are_those_of_the_pinned_release() -> None:
    params = native.llama_context_default_params()
    expected = {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max": 0, "n_outputs_max_per_seq": 1,
        "n_threads": 4, "n_threads_batch": 4, "ctx_type": 0, "rope_scaling_type": -1, "pooling_type": -1,
        "attention_type": -1, "flash_attn_type": -1, "type_k": 1, "type_v": 1, "embeddings": False,
        "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True, "kv_unified": False,
    }  # fmt: skip
    assert {name: getattr(params, name) for name in expected} == expected
    assert native.llama_sampler_chain_default_params().no_perf is True


def test_the_engine_sees_a_processor_with_memory() -> None:
    facts = engine_info()
    [cpu] = [device for device in facts.devices if device.kind == "cpu"]
    assert cpu.name == "CPU"
    assert cpu.description
    assert cpu.memory_total >= cpu.memory_free > 0
    assert "CPU" in facts.system_info


# Tokens and text


@pytest.mark.parametrize(
    "text",
    [
        "Is 1 + 1 = 2?",
        "  a\n\n\tb ",
        "größer, Füße",
        "日本語 한국어 हिन्दी עברית ﷽",
        "🙂 👩‍👩‍👧 🇪🇺",
        "\x00\x01a",
        "ｆｕｌｌ",
    ],
)
def test_text_survives_tokenization(backend: LlamaBackend, text: str) -> None:
    tokens = backend.tokenize(text)
    assert b"".join(map(backend.piece, tokens)).decode() == text
    assert all(0 <= token < 640 for token in tokens)


def test_no_text_is_no_tokens(backend: LlamaBackend) -> None:
    assert backend.tokenize("") == []


def test_a_long_text_is_tokenized_whole(backend: LlamaBackend) -> None:
    tokens = backend.tokenize("größer 日本 " * 5000)
    assert b"".join(map(backend.piece, tokens)).decode() == "größer 日本 " * 5000


def test_special_tokens_are_recognised_in_text(backend: LlamaBackend) -> None:
    assert backend.tokenize("<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜><think>") == [0, 3, 71, 4, 5]
    assert backend.tokenize("a") == [71]
    assert backend.tokenize("a", add_bos=True) == [0, 71]


def test_control_tokens_have_no_text(backend: LlamaBackend) -> None:
    assert [token for token in range(backend.vocab_size) if not backend.piece(token)] == [0, 1, 2, 3, 4]


def test_a_control_token_is_spelled_when_it_is_named_visible(nano_path: Path) -> None:
    with small(nano_path, visible=("<｜User｜>",)) as backend:
        assert backend.piece(3).decode() == "<｜User｜>"
        assert backend.piece(4) == b""


def test_thinking_tags_are_spelled(backend: LlamaBackend) -> None:
    assert [backend.piece(token) for token in backend.tokenize("<think></think>")] == [b"<think>", b"</think>"]


def test_only_the_end_token_ends(backend: LlamaBackend) -> None:
    assert [token for token in range(backend.vocab_size) if backend.ends(token)] == [1]


@pytest.mark.parametrize("token", [-1, 640, 2**31 - 1])
def test_a_token_outside_of_the_vocabulary_is_refused(backend: LlamaBackend, token: int) -> None:
    with pytest.raises(EngineFailed, match=f"there is no token {token} in a vocabulary of 640"):
        backend.piece(token)


# What cannot be


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"nowhere\.gguf: the engine cannot load it"):
        small(tmp_path / "nowhere.gguf")


def test_a_file_that_is_no_model_is_refused_with_the_engine_s_reason(tmp_path: Path) -> None:
    path = tmp_path / "story.gguf"
    path.write_text("Once upon a time there was no model at all. " * 100)
    with pytest.raises(EngineFailed, match=r"story\.gguf: the engine cannot load it: .*magic"):
        small(path)


def test_a_truncated_file_is_refused(tmp_path: Path, nano_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(nano_path.read_bytes()[:1_000_000])
    with pytest.raises(EngineFailed, match=r"cut\.gguf: the engine cannot load it: ."):
        small(path)


def test_an_error_names_its_own_cause_and_not_an_earlier_one(tmp_path: Path) -> None:
    bad, missing = write(tmp_path / "bad.gguf", tensors=[]), tmp_path / "nowhere.gguf"
    reasons = []
    for path in (bad, missing, bad):
        with pytest.raises(EngineFailed) as caught:
            small(path)
        reasons.append(caught.value.message)
    assert reasons[0] == reasons[2] != reasons[1]


def test_a_context_beyond_memory_does_not_fit(nano_path: Path) -> None:
    limited = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from runtime.base.errors import DoesNotFit\n"
        "from runtime.llama import LlamaBackend, OpenOptions\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try:\n"
        "    LlamaBackend(Path(sys.argv[1]), OpenOptions(context=2_000_000))\n"
        "except DoesNotFit as error:\n"
        "    sys.stdout.write(f'{error.message}\\n{error.hint}')\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", limited, str(nano_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    message, hint = child.stdout.split("\n")
    assert message.startswith("no room for a context of 2000000 tokens (f16): ")
    assert hint == "try --ctx-size 500000, or --kv-type q8_0"


@pytest.mark.parametrize(
    "wrong",
    [{"context": 0}, {"context": 2**31}, {"context": 2**32 + 256}, {"threads": 0}, {"threads": 513}, {"slots": 256}],
)
def test_numbers_that_the_engine_s_types_cannot_hold_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        OpenOptions(**{"context": 256, **wrong})  # type: ignore[arg-type]


def test_a_batch_that_is_too_large_or_empty_is_refused(backend: LlamaBackend, nano_path: Path) -> None:
    for tokens in ([], [9] * 2049):
        with pytest.raises(EngineFailed, match=f"a batch of {len(tokens)} tokens was asked for"):
            backend.decode(batch(tokens, output=False))
    with small(nano_path) as smaller:
        assert smaller.batch_size == 256
        with pytest.raises(EngineFailed, match="a batch of 257 tokens was asked for; between 1 and 256 are possible"):
            smaller.decode(batch([9] * 257))


def test_more_rows_than_slots_are_refused(nano_path: Path) -> None:
    with small(nano_path) as backend:
        asking = batch([9] * 20)
        asking.outputs = list(range(20))
        with pytest.raises(EngineFailed, match="logits of 20 rows were asked for; 17 are possible"):
            backend.decode(asking)


@pytest.mark.parametrize("row", [0, 1, 3, 99, -2])
def test_a_row_without_logits_is_refused(backend: LlamaBackend, row: int) -> None:
    backend.decode(batch([9, 9, 9]))
    for draw in (backend.sampler(GREEDY, 0), backend.sampler(SamplingParams(), 0)):
        with pytest.raises(EngineFailed, match=f"row {row} of the last batch has no logits"):
            draw(row)
    with pytest.raises(EngineFailed, match=f"row {row} of the last batch has no logits"):
        backend.statistics(row, 0)


@pytest.mark.parametrize(
    ("token", "position", "slot"), [(640, 0, 0), (-7, 0, 0), (9, 5, 0), (9, 0, 24), (9, 0, -1)], ids=str
)
def test_impossible_batches_are_refused_and_harmless(
    backend: LlamaBackend, token: int, position: int, slot: int
) -> None:
    backend.decode(batch([9, 9, 9]))
    with pytest.raises(EngineFailed, match=r"the engine failed to decode \(code -1\): ."):
        backend.decode(batch([token], position, slot))
    backend.decode(batch([9], 3))


def test_closing_twice_is_harmless(nano_path: Path) -> None:
    backend = small(nano_path)
    backend.close()
    backend.close()


# Reproducible


@pytest.fixture(scope="module", params=[(1, "F16"), (15, "Q4_K_M")], ids=lambda value: value[1])
def requantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nano_path: Path) -> Path:
    """nano with another file type (enum llama_ftype): less exact than from the original, good enough to talk."""
    path = tmp_path_factory.mktemp("requantized") / "nano.gguf"
    params = native.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = request.param[0], True, 1
    assert native.llama_model_quantize(os.fsencode(nano_path), os.fsencode(path), ctypes.byref(params)) == 0
    return path


def test_reproducible_draws_the_same_whatever_was_asked_before(requantized: Path) -> None:
    params = SamplingParams(temperature=0.8, max_tokens=60, statistics=True, seed=3)
    with small(requantized, context=1024) as backend:
        wanted = request(backend, WORD, params)
        # What these leave in the cache shares all but the last tokens with the wanted prompt.
        others = [Request(Prompt((*wanted.prompt.tokens[:-cut], 9, 9)), params) for cut in (2, 3, 6)]
        [fresh] = Engine(backend, reproducible=True).generate([wanted])
        engine = Engine(backend, reproducible=True)
        for other in others:
            engine.generate([other])
            [again] = engine.generate([wanted])
            assert again.tokens == fresh.tokens
            assert logprobs(again) == logprobs(fresh)


# Positions


def test_a_text_is_as_long_as_the_model_reaches(nano_path: Path) -> None:
    reaches = {
        OpenOptions(512): 512,
        OpenOptions(4096): 2048,  # as trained
        OpenOptions(4096, yarn=Yarn(1.5, 2048)): 3072,
        OpenOptions(4096, reach=1000): 1000,
        OpenOptions(512, reach=1000): 512,
    }
    for options, longest in reaches.items():
        with LlamaBackend(nano_path, options) as backend:
            assert backend.longest == longest


def test_yarn_changes_what_the_model_computes(nano_path: Path) -> None:
    rows = []
    for yarn in (None, Yarn(4, 2048)):
        with small(nano_path, yarn=yarn) as backend:
            tokens = backend.tokenize("What is 12 + 34? What is 12 + 35?")
            backend.decode(batch(tokens))
            rows.append(row_of(backend, len(tokens) - 1))
    assert abs(rows[0] - rows[1]).max() > 0.01
