"""Opening a file in a child that may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.base.errors import Aborted, BadModelFile, DoesNotFit, EngineFailed
from runtime.llama import trial
from runtime.llama.trial import try_in_child, try_mtp_in_child
from tests.gguf_writer import T, llama_metadata, llama_tensors, moe_metadata, moe_tensors, write
from tests.nextn import round_robin, with_mtp


def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let the child run `body` instead of the engine."""
    script = tmp_path / "child"
    script.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(script))


def test_a_good_file_passes(nano_path: Path) -> None:
    try_in_child(nano_path)


@pytest.mark.parametrize(("metadata", "tensors"), [(llama_metadata, llama_tensors), (moe_metadata, moe_tensors)])
def test_small_sound_files_pass(tmp_path: Path, metadata: object, tensors: object) -> None:
    try_in_child(write(tmp_path / "small.gguf", metadata(), tensors()))  # type: ignore[operator]


def test_layers_that_predict_ahead_are_tried_on_demand(tmp_path: Path, nano_path: Path) -> None:
    try_mtp_in_child(round_robin(tmp_path / "ahead.gguf", nano_path))
    with pytest.raises(EngineFailed, match="opens no second context"):
        try_mtp_in_child(nano_path)
    scaled = with_mtp(tmp_path / "scaled.gguf", nano_path, **{"attention.temperature_scale": 0.1})
    try_in_child(scaled)
    with pytest.raises(BadModelFile, match="crashes the engine"):
        try_mtp_in_child(scaled)


def test_a_path_may_be_relative(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nano_path.parent)
    try_in_child(Path("nano.gguf"))


def test_a_file_the_engine_refuses_is_refused_with_its_reason(tmp_path: Path) -> None:
    tensors = [t for t in llama_tensors() if t.name != "blk.1.ffn_up.weight"]
    path = write(tmp_path / "gap.gguf", tensors=tensors)
    with pytest.raises(EngineFailed) as caught:
        try_in_child(path)
    assert caught.value.message.startswith(f"{path}: the engine cannot load it: ")
    assert caught.value.message.endswith("tensor 'blk.1.ffn_up.weight' not found")
    assert caught.value.exit_code == 7


def test_an_architecture_the_engine_does_not_know_is_refused_with_its_reason(tmp_path: Path) -> None:
    metadata = {key.replace("llama.", "martian."): value for key, value in llama_metadata().items()}
    path = write(tmp_path / "martian.gguf", metadata | {"general.architecture": "martian"})
    with pytest.raises(EngineFailed, match="unknown model architecture: 'martian'"):
        try_in_child(path)


def test_a_file_that_crashes_the_engine_is_bad(tmp_path: Path) -> None:
    """More experts used than there are: an assertion of the engine, as of release 0.3.36."""
    path = write(tmp_path / "hostile.gguf", moe_metadata(**{"qwen3moe.expert_used_count": 9}), moe_tensors())
    with pytest.raises(BadModelFile) as caught:
        try_in_child(path)
    problem = "opening it crashes the engine (SIGABRT): the file is damaged or hostile"
    assert caught.value.message == f"{path}: {problem}"
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE"])
def test_a_child_that_dies_by_a_signal_makes_the_file_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    python(tmp_path, monkeypatch, f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(BadModelFile, match=rf"model\.gguf: opening it crashes the engine \({name}\)"):
        try_in_child(tmp_path / "model.gguf")


def test_a_child_that_the_system_kills_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DoesNotFit, match="which is what happens when memory runs out"):
        try_in_child(tmp_path / "model.gguf")


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="real-time signals")
def test_a_signal_without_a_name_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGRTMIN + 2)")
    with pytest.raises(BadModelFile, match=r"opening it crashes the engine \(signal \d+\)"):
        try_in_child(tmp_path / "model.gguf")


def test_ctrl_c_while_the_child_runs_is_a_stop_and_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
    with pytest.raises(Aborted, match="stopped while opening"):
        try_in_child(tmp_path / "model.gguf")


def test_a_child_that_fails_otherwise_makes_the_file_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "sys.exit('first line\\nno memory')")
    with pytest.raises(BadModelFile, match=r"opening it failed: no memory$"):
        try_in_child(tmp_path / "model.gguf")


def test_a_silent_failure_names_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "sys.exit(3)")
    with pytest.raises(BadModelFile, match=r"opening it failed: 3$"):
        try_in_child(tmp_path / "model.gguf")


def test_a_refusal_without_a_reason_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "sys.exit(7)")
    with pytest.raises(EngineFailed, match=r"model\.gguf: the engine cannot open it"):
        try_in_child(tmp_path / "model.gguf")


def test_a_child_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    monkeypatch.setattr(trial, "_SECONDS", 1)
    with pytest.raises(BadModelFile, match="the engine was still busy after 1 s of opening it"):
        try_in_child(tmp_path / "model.gguf")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_bytes_that_are_no_text_are_shown_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, "sys.stderr.buffer.write(b'\\xff is bad\\n'); sys.exit(7)")
    with pytest.raises(EngineFailed, match="� is bad"):
        try_in_child(tmp_path / "model.gguf")


def test_a_file_whose_name_has_odd_characters(tmp_path: Path) -> None:
    try_in_child(write(tmp_path / "-c größer 'a' \"b\" ; $(x).gguf"))


def test_the_child_says_one_line_and_no_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "none.gguf", tensors=[T("output_norm.weight", (64,))])
    command = [sys.executable, "-c", "from runtime.llama.trial import main; main()", str(path)]
    root = Path(trial.__file__).resolve().parents[2]
    child = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert child.returncode == 7
    assert child.stdout == ""
    assert len(child.stderr.splitlines()) == 1
    assert child.stderr.startswith(f"{path}: the engine cannot load it: ")
