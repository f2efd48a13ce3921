"""Carrying out a plan: what is refused, what survives a stop, a kill and a full disk, and what is written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.plan import QuantPlan, make_plan, planned
from quant.recipe.mixtures import standard
from quant.sources.source import GgufSource, Source, TensorSpec
from quant.write.execute import quantize
from runtime.base.errors import Aborted, DoesNotFit, DsrError, NotFound, UsageError, VerificationFailed
from runtime.base.events import Event, Listener, Notice, Progress, ignore
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card
from runtime.llama import dequantize_rows, quantize_rows
from tests.quant.engine_quantizer import reference
from tests.quant.models import importance, model
from tests.quant.write.killed import kill_writers

Weights = Mapping[str, NDArray[np.float32]]


@pytest.fixture
def source_path(tmp_path: Path) -> Path:
    return model(tmp_path / "source.gguf", layers=4)


def plan_for(source: Source, name: str = "q4_k_m") -> QuantPlan:
    return standard(name, source)


def write(
    source_path: Path,
    out: Path,
    name: str = "q4_k_m",
    stop: Stop | None = None,
    listen: Listener = ignore,
    importance: Weights | None = None,
    **options: Any,
) -> tuple[Path, ...]:
    with GgufSource(source_path) as opened:
        source = opened if importance is None else opened.with_importance(importance)
        return quantize(source, plan_for(opened, name), out, Run(stop or Stop(), listen, threads=2), **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stopping(after: int, stop: Stop) -> Callable[[Event], None]:
    """A listener that asks to stop when `after` bytes are written."""

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.done >= after:
            stop.set()

    return listen


def test_progress_counts_the_bytes_of_the_weights(source_path: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    write(source_path, tmp_path / "out.gguf", listen=events.append)
    with GgufSource(source_path) as source:
        total = sum(tensor.bytes for tensor in plan_for(source).tensors)
    moves = [event for event in events if isinstance(event, Progress)]
    assert {(event.job, event.item, event.total, event.unit) for event in moves} == {
        ("quantizing", "out.gguf", total, "bytes")
    }
    assert moves[0].done == 0
    assert moves[-1].done == total
    assert [event.done for event in moves] == sorted(event.done for event in moves)
    assert names(tmp_path) == ["out.gguf", "source.gguf"]


def test_a_stopped_run_continues_and_gives_the_same_bytes(source_path: Path, tmp_path: Path) -> None:
    wanted = reference(source_path, tmp_path / "wanted.gguf", "q4_k_m").read_bytes()
    out, stop, seen = tmp_path / "out.gguf", Stop(), list[Event]()
    with pytest.raises(Aborted, match="continues where it was"):
        write(source_path, out, stop=stop, listen=stopping(len(wanted) // 3, stop))
    assert names(tmp_path) == ["out.gguf.journal", "out.gguf.partial", "source.gguf", "wanted.gguf"]
    finished = [name for line in journal_lines(out)[1:] for name in line["finished"]]
    assert "token_embd.weight" in finished
    write(source_path, out, listen=seen.append)
    notice, progress = seen[:2]
    assert isinstance(notice, Notice) and re.fullmatch("continuing: .* of .* are there already", notice.text)
    assert isinstance(progress, Progress) and progress.done > 0
    assert out.read_bytes() == wanted
    assert names(tmp_path) == ["out.gguf", "source.gguf", "wanted.gguf"]


def journal_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"{out}.journal").read_text().splitlines()]


def unfinished(source_path: Path, out: Path, name: str = "q4_k_m", **options: Any) -> None:
    stop = Stop()
    with pytest.raises(Aborted):
        write(source_path, out, name, stop=stop, listen=stopping(9000, stop), **options)


def test_what_the_journal_calls_finished_is_not_written_again(source_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    unfinished(source_path, out)
    partial = Path(f"{out}.partial")
    with GgufSource(source_path) as source:
        offset = read_offsets(plan_for(source))["output.weight"]
    data = bytearray(partial.read_bytes())
    data[offset : offset + 4] = b"kept"
    partial.write_bytes(data)
    write(source_path, out)
    assert out.read_bytes()[offset : offset + 4] == b"kept"


def read_offsets(plan: QuantPlan) -> dict[str, int]:
    from quant.gguf.writer import layout

    return dict(zip((tensor.name for tensor in plan.tensors), layout(plan.metadata, plan.tensors).offsets, strict=True))


@pytest.mark.parametrize("damage", ["line", "empty", "noise", "partial"])
def test_a_damaged_journal_costs_work_and_nothing_else(source_path: Path, tmp_path: Path, damage: str) -> None:
    wanted = reference(source_path, tmp_path / "wanted.gguf", "q4_k_m").read_bytes()
    out = tmp_path / "out.gguf"
    unfinished(source_path, out)
    journal = Path(f"{out}.journal")
    if damage == "line":
        journal.write_bytes(journal.read_bytes()[:-7])
    elif damage == "empty":
        journal.write_bytes(b"")
    elif damage == "noise":
        journal.write_bytes(b"\xff\0[1]\n" + journal.read_bytes())
    else:
        os.truncate(f"{out}.partial", 100)
    write(source_path, out)
    assert out.read_bytes() == wanted


@pytest.mark.parametrize("change", ["mixture", "source", "importance", "split"])
def test_unfinished_work_of_another_plan_or_source_is_begun_anew(
    source_path: Path, tmp_path: Path, change: str
) -> None:
    out, seen = tmp_path / "out.gguf", list[Event]()
    unfinished(source_path, out)
    name, options = "q4_k_m", dict[str, Any]()
    if change == "mixture":
        name = "q5_k_m"
    elif change == "source":
        model(source_path, layers=4, seed=5)
    elif change == "importance":
        options["importance"] = importance(source_path)
    else:
        options["split_max_size"] = 8_000
    files = write(source_path, out, name, listen=seen.append, **options)
    assert [event.text for event in seen if isinstance(event, Notice)] == [
        "out.gguf.journal: belongs to other weights, another plan or another version: the work starts again"
    ]
    assert names(tmp_path) == sorted([*(file.name for file in files), "source.gguf"])
    if change != "split":
        weights = options.get("importance")
        assert out.read_bytes() == reference(source_path, tmp_path / "wanted", name, weights).read_bytes()


def test_a_kill_between_renaming_and_the_end_is_noticed(source_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    unfinished(source_path, out)
    journal = Path(f"{out}.journal").read_bytes()
    write(source_path, out)
    Path(f"{out}.journal").write_bytes(journal + b'{"finished": [], "complete": true}\n')
    made = out.stat().st_ino
    assert write(source_path, out) == (out,)
    assert out.stat().st_ino == made
    assert names(tmp_path) == ["out.gguf", "source.gguf"]


def test_two_at_once_do_not_write_the_same_file(source_path: Path, tmp_path: Path) -> None:
    out, caught = tmp_path / "out.gguf", list[DsrError]()

    def listen(event: Event) -> None:
        if not caught:
            with pytest.raises(UsageError) as error:
                write(source_path, out)
            caught.append(error.value)

    write(source_path, out, listen=listen)
    assert caught[0].message == f"{out}: another dsr is writing this file"
    assert names(tmp_path) == ["out.gguf", "source.gguf"]


def test_an_existing_file_is_kept_unless_forced(source_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already") as caught:
        write(source_path, out)
    assert "--force" in (caught.value.hint or "")
    assert out.read_bytes() == b"mine"
    assert names(tmp_path) == ["out.gguf", "source.gguf"]
    unfinished(source_path, out, force=True)
    assert out.read_bytes() == b"mine"
    write(source_path, out, force=True)
    assert out.read_bytes() == reference(source_path, tmp_path / "wanted", "q4_k_m").read_bytes()


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard", "folder"])
def test_the_source_is_never_written_to(source_path: Path, tmp_path: Path, link: str) -> None:
    before, out = source_path.read_bytes(), tmp_path / "out.gguf"
    if link == "itself":
        out = source_path
    elif link == "symbolic":
        out.symlink_to(source_path)
    elif link == "hard":
        out.hardlink_to(source_path)
    else:
        (tmp_path / "folder").symlink_to(tmp_path)
        out = tmp_path / "folder" / source_path.name
    with pytest.raises(UsageError, match="is the source itself"):
        write(source_path, out, force=True)
    assert source_path.read_bytes() == before


def test_a_folder_that_is_missing_and_one_that_is_in_the_way(source_path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        write(source_path, tmp_path / "none" / "out.gguf")
    (tmp_path / "out.gguf").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write(source_path, tmp_path / "out.gguf", force=True)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    source_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))  # type: ignore[attr-defined]
    with pytest.raises(DoesNotFit, match="are needed, 1000 B are free") as caught:
        write(source_path, tmp_path / "out.gguf")
    assert caught.value.exit_code == 5
    assert names(tmp_path) == ["source.gguf"]


def test_a_disk_that_fills_up_keeps_what_was_written(
    source_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = reference(source_path, tmp_path / "wanted", "q4_k_m").read_bytes()
    out, real, written = tmp_path / "out.gguf", os.pwrite, 0

    def full(handle: int, data: Any, at: int) -> int:
        nonlocal written
        written += len(data)
        if written > 20_000:
            raise OSError(28, "No space left on device")
        return real(handle, data, at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(DoesNotFit, match="the disk is full"):
            write(source_path, out)
    assert not out.exists()
    write(source_path, out)
    assert out.read_bytes() == wanted


def test_quantized_weights_are_not_quantized_again_by_accident(nano_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"47 tensors are quantized already \(Q8_0\): .* second loss") as caught:
        write(nano_path, tmp_path / "out.gguf", "q4_0")
    assert "--allow-requantize" in (caught.value.hint or "")
    with GgufSource(nano_path) as source:
        assert "47 tensors are quantized already (Q8_0)" in plan_for(source, "q4_0").warnings[0]
    write(nano_path, tmp_path / "same.gguf", "q8_0")  # every tensor keeps its type, so nothing is lost
    before, after = read_card(nano_path), read_card(tmp_path / "same.gguf")
    data, copied = nano_path.read_bytes(), (tmp_path / "same.gguf").read_bytes()
    placed = {tensor.name: tensor for tensor in before.tensors}
    for tensor in after.tensors:
        old = placed[tensor.name]
        assert copied[tensor.offset : tensor.offset + tensor.size] == data[old.offset : old.offset + old.size]


def test_split_files_are_one_model(source_path: Path, tmp_path: Path) -> None:
    whole = write(source_path, tmp_path / "whole.gguf")[0]
    files = write(source_path, tmp_path / "out.gguf", split_max_size=8_000)
    assert len(files) == 3
    assert files[0].name == "out-00001-of-00003.gguf"
    assert all(file.stat().st_size <= 9_000 for file in files[1:])
    card = read_card(files[0])
    assert card.metadata["split.tensors.count"] == len(card.tensors)
    with GgufSource(files[0]) as split, GgufSource(whole) as one:
        assert split.tensors == one.tensors
        assert split.metadata == one.metadata
        for tensor in one.tensors:
            rows = tensor.rows
            assert np.array_equal(split.stored_rows(tensor, 0, rows), one.stored_rows(tensor, 0, rows))


def test_what_fits_one_file_is_not_split(source_path: Path, tmp_path: Path) -> None:
    assert write(source_path, tmp_path / "out.gguf", split_max_size=10**9) == (tmp_path / "out.gguf",)


def test_renaming_split_files_that_was_interrupted_is_completed(
    source_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out.gguf", os.replace
    renamed = list[str]()

    def killed(old: Path, new: Path) -> None:
        if len(renamed) == 1:
            raise KeyboardInterrupt
        renamed.append(new.name)
        real(old, new)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        write(source_path, out, split_max_size=8_000)
    assert renamed == ["out-00003-of-00003.gguf"]
    assert not (tmp_path / "out-00001-of-00003.gguf").exists()
    files = write(source_path, out, split_max_size=8_000)
    assert names(tmp_path) == sorted([*(file.name for file in files), "source.gguf"])
    assert read_card(files[0]).size > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", ["q8_0", "f16", "iq4_nl"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float, name: str) -> None:
    path = model(tmp_path / "source.gguf", type="F32")
    with GgufSource(path) as source:
        offset = next(t.offset for t in read_card(path).tensors if t.name == "blk.1.ffn_up.weight")
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.float32(bad).tobytes())
    with GgufSource(path) as source, pytest.raises(VerificationFailed, match=r"blk\.1\.ffn_up\.weight: there are val"):
        quantize(source, plan_for(source, name), tmp_path / "out.gguf", Run(threads=2))
    assert not (tmp_path / "out.gguf").exists()


def test_copied_weights_are_looked_at_too(tmp_path: Path) -> None:
    path = model(tmp_path / "source.gguf", type="F16")
    with path.open("r+b") as file:
        file.seek(next(t.offset for t in read_card(path).tensors if t.name == "token_embd.weight"))
        file.write(np.float16(np.inf).tobytes())
    with GgufSource(path) as source, pytest.raises(VerificationFailed, match=r"token_embd\.weight: .* not finite"):
        quantize(source, plan_for(source, "f16"), tmp_path / "out.gguf", Run(threads=1))


def test_a_low_type_without_an_importance_is_refused(source_path: Path, tmp_path: Path) -> None:
    wide = model(tmp_path / "wide.gguf", layers=1, width=256)
    with pytest.raises(UsageError, match=r"blk\.0\.attn_k\.weight in IQ2_XXS needs an importance matrix$"):
        write(wide, tmp_path / "out.gguf", "iq2_xxs")
    some = {"blk.0.attn_q.weight": np.ones((1, 256), np.float32)}
    with pytest.raises(UsageError, match="and the given one has no entry for it"):
        write(wide, tmp_path / "out.gguf", "iq2_xxs", importance=some)


def test_an_importance_of_another_model_is_refused(source_path: Path, tmp_path: Path) -> None:
    other = {"blk.0.attn_q.weight": np.ones((1, 48), np.float32)}
    with pytest.raises(UsageError, match=r"another model: 48 values for blk\.0\.attn_q\.weight, which has 1 x 32"):
        write(source_path, tmp_path / "out.gguf", importance=other)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_an_importance_that_is_not_sound_is_refused(source_path: Path, tmp_path: Path, bad: float) -> None:
    weights = importance(source_path)
    weights["blk.2.attn_q.weight"][0, 3] = bad
    with pytest.raises(VerificationFailed, match=r"blk\.2\.attn_q\.weight: the importance matrix holds values"):
        write(source_path, tmp_path / "out.gguf", importance=weights)


def test_a_plan_of_another_model_is_refused(source_path: Path, tmp_path: Path) -> None:
    other = model(tmp_path / "other.gguf", layers=4, hidden=64)
    with GgufSource(other) as opened:
        plan = plan_for(opened)
    with GgufSource(source_path) as source, pytest.raises(UsageError, match="the plan is for another model"):
        quantize(source, plan, tmp_path / "out.gguf", Run(threads=1))


class Made(Source):
    """A source that is no file: each row holds its own number. Counts what was asked for at once."""

    def __init__(self, *tensors: TensorSpec) -> None:
        super().__init__("llama", tensors)
        self.largest = 0

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        self.largest = max(self.largest, count * tensor.row_length)
        rows = np.arange(first, first + count, dtype=np.float32)[:, None]
        return np.ascontiguousarray(np.broadcast_to(rows, (count, tensor.row_length)))


def test_rows_are_read_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    source = Made(TensorSpec("a.weight", (96, 4000, 3), "BF16"), TensorSpec("b.weight", (300_000, 2), "F8_E4M3"))
    targets = [planned(tensor, "F32", "test") for tensor in source.tensors]
    plan = make_plan(targets, source, 0)
    out = quantize(source, plan, tmp_path / "out.gguf", Run(threads=3))[0]
    assert source.largest == 300_000  # one row cannot be divided
    offsets = read_offsets(plan)
    rows = np.frombuffer(out.read_bytes(), np.float32, 96 * 12000, offsets["a.weight"]).reshape(12000, 96)
    assert np.array_equal(rows, source.read(source.tensors[0], 0, 12000))
    assert out.stat().st_size == plan.bytes


def test_every_expert_has_the_importance_of_its_own(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    weights = chance.standard_normal((5 * 7, 256)).astype(np.float32)
    slices = chance.uniform(0.1, 9, (5, 256)).astype(np.float32)

    class Experts(Made):
        def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
            return weights[first : first + count]

    source = Experts(TensorSpec("blk.0.ffn_up_exps.weight", (256, 7, 5), "BF16"))
    plan = make_plan([planned(source.tensors[0], "Q2_K", "test")], source, None)
    given = {"blk.0.ffn_up_exps.weight": slices.reshape(1, -1)}
    out = quantize(source.with_importance(given), plan, tmp_path / "out.gguf", Run(threads=1))[0]
    made = np.frombuffer(out.read_bytes(), np.uint8, 35 * 84, read_offsets(plan)["blk.0.ffn_up_exps.weight"])
    wanted = [quantize_rows(10, weights[7 * n : 7 * n + 7], slices[n]) for n in range(5)]
    assert np.array_equal(made.reshape(35, 84), np.concatenate(wanted))
    assert not np.array_equal(made.reshape(35, 84), quantize_rows(10, weights, slices[0]))


def test_storing_rows_and_reading_them_back() -> None:
    rows = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
    stored = quantize_rows(8, rows)
    assert stored.shape == (2, 272)
    assert np.abs(dequantize_rows(8, stored) - rows).max() < 1 / 254
    assert np.array_equal(dequantize_rows(0, rows.view(np.uint8)), rows)
    with pytest.raises(UsageError, match="Q8_K is not a type for weights"):
        quantize_rows(15, rows)
    with pytest.raises(UsageError, match="IQ2_XXS needs an importance matrix"):
        quantize_rows(16, rows)
    with pytest.raises(UsageError, match="rows of 128 weights"):
        quantize_rows(12, rows.reshape(4, 128))


KILLED = """
import sys
from pathlib import Path
from quant.write.execute import quantize
from quant.sources.source import GgufSource
from tests.quant.write.test_execute import plan_for
with GgufSource(Path(sys.argv[1])) as source:
    quantize(source, plan_for(source, "q4_k_m"), Path(sys.argv[2]), threads=2,
             allow_requantize=True, listen=lambda _: print(flush=True))
"""


def test_a_process_that_is_killed_leaves_nothing_wrong(nano_path: Path, tmp_path: Path) -> None:
    wanted = reference(nano_path, tmp_path / "wanted", "q4_k_m").read_bytes()
    out = tmp_path / "out.gguf"
    kill_writers(KILLED, [str(nano_path), str(out)], out, wanted, times=4)
    with GgufSource(nano_path) as source:
        if not out.exists():
            quantize(source, plan_for(source, "q4_k_m"), out, Run(threads=2), allow_requantize=True)
    assert out.read_bytes() == wanted
