"""What `dsr quantize` says to weights that are damaged, hostile or of another kind: one line, and the exit code that
scripts know."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from dsr.cli import app
from quant.measure.imatrix import Entry, Imatrix, write
from tests import gguf_writer
from tests.gguf_writer import T, V, gguf, header, llama_metadata, llama_tensors
from tests.quant import tiny

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(*arguments: str) -> tuple[int, str]:
    """The exit code and the error, after looking that it is one line, with a hint at most, free of control characters,
    and that no model was made."""
    before = sorted(Path().rglob("*.gguf"))
    done = CliRunner().invoke(app, ["quantize", *arguments])
    assert isinstance(done.exception, SystemExit), done.output
    said = done.stderr.splitlines()
    notices = ("warning: ", "left out: ", "errors of rounding are not corrected: ")
    lines = [line for line in said if not line.startswith(notices)]
    assert lines[0].startswith("error: ") and [line[:6] for line in lines[1:]] in ([], ["hint: "]), done.stderr
    assert done.stdout == "" and all(text.isprintable() for text in said)
    assert sorted(Path().rglob("*.gguf")) == before
    return done.exit_code, lines[0].removeprefix("error: ")


class Raw(NamedTuple):
    """A safetensors file taken apart."""

    header: dict[str, Any]
    data: bytearray


def changed(file: str, change: Callable[[Raw], object]) -> Callable[[Path], None]:
    """Damage to one safetensors file."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        path = next(path for path in folder.glob("*.safetensors") if file in (path.name, *_names(path)))
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        parts = Raw(json.loads(raw[8 : 8 + length]), bytearray(raw[8 + length :]))
        change(parts)
        tiny.write_raw(path, parts.header, bytes(parts.data))

    return damage


def _names(path: Path) -> Sequence[str]:
    raw = path.read_bytes()
    return tuple(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]))


def configured(**values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def number(name: str, value: float) -> Callable[[Path], None]:
    """The first value of an F32 tensor."""

    def change(raw: Raw) -> None:
        struct.pack_into("<f", raw.data, raw.header[name]["data_offsets"][0], value)

    return changed(name, change)


def long_header(folder: Path) -> None:
    (folder / FIRST).write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def overlapping(raw: Raw) -> None:
    second = sorted(raw.header, key=lambda name: raw.header[name]["data_offsets"])[1]
    begin, end = raw.header[second]["data_offsets"]
    raw.header[second]["data_offsets"] = [begin - 1, end - 1]


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return changed(old, lambda raw: raw.header.update({new: raw.header.pop(old)}))


def without_factors(raw: Raw) -> None:
    """The last tensor goes, and its bytes with it."""
    raw.header[f"{DOWN}_factors"] = raw.header.pop(f"{DOWN}_scale_inv")


def flat_factors(raw: Raw) -> None:
    rows, columns = raw.header[f"{DOWN}_scale_inv"]["shape"]
    raw.header[f"{DOWN}_scale_inv"]["shape"] = [rows * columns]


def indexed(folder: Path) -> None:
    names = {name: path.name for path in folder.glob("*.safetensors") for name in _names(path)}
    index = {"weight_map": names | {"model.layers.9.mlp.down_proj.weight": FIRST}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")


def shard_missing(folder: Path) -> None:
    (folder / SECOND).unlink()


def pointer(folder: Path) -> None:
    (folder / FIRST).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


@pytest.mark.parametrize(
    ("damage", "code", "problem"),
    [
        (long_header, 4, f"tiny/{FIRST}: "),
        (changed(FIRST, overlapping), 4, " overlap"),
        (number(f"{DOWN}_scale_inv", float("nan")), 4, f"tensor '{DOWN}_scale_inv' holds NaN or infinity"),
        (number(f"{DOWN}_scale_inv", float("inf")), 4, f"tensor '{DOWN}_scale_inv' holds NaN or infinity"),
        (changed(f"{DOWN}_scale_inv", without_factors), 4, f"the tensor '{DOWN}' has no '{DOWN}_scale_inv'"),
        (changed(f"{DOWN}_scale_inv", flat_factors), 4, "no factors for 32x48 weights, in blocks of 16x16"),
        (indexed, 4, "lacks the tensor 'model.layers.9.mlp.down_proj.weight'"),
        (shard_missing, 3, f"1 of 2 weight files is missing: {SECOND}"),
        (pointer, 4, f"tiny/{FIRST}: "),
        (pickled, 7, "a Python pickle, which could run any code and is never loaded"),
        (configured(architectures=["Evil"], auto_map={"AutoModel": "evil.Model"}), 7, "it brings along is never run"),
        (configured(architectures=["GPT2LMHeadModel"]), 7, "dsr cannot convert the class GPT2LMHeadModel"),
        (configured(vocab_size=300), 4, "but config.json asks for 300x32"),
        (configured(vocab_size=100), 4, "but config.json asks for 100x32"),
        (configured(n_routed_experts=0), 4, "n_routed_experts is 0"),
        (configured(num_experts_per_tok=5), 4, "5 experts are used per token, but there are 4"),
        (configured(architectures=["\x1b[2J\x1b]0;gone\x07"]), 7, "dsr cannot convert the class [2J]0;gone"),
        (renamed("model.norm.weight", "\x1b[31mevil\r"), 4, "missing for its config.json: model.norm.weight"),
    ],
)
def test_bad_original_weights(tmp_path: Path, damage: Callable[[Path], None], code: int, problem: str) -> None:
    tiny.deepseek_v3(tmp_path / "tiny")
    damage(tmp_path / "tiny")
    found, said = refused("tiny", "out.gguf", "-r", "q4_0")
    assert problem in said and found == code, (found, said)


def test_hostile_names_of_tensors_are_shown_with_their_control_characters_escaped(tmp_path: Path) -> None:
    tiny.qwen2(tmp_path / "tiny")
    [path] = (tmp_path / "tiny").glob("*.safetensors")
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + length])
    end = len(raw) - 8 - length
    entries["\x1b[31mevil\x9b\n"] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    tiny.write_raw(path, entries, raw[8 + length :] + bytes(4))
    code, said = refused("tiny", "out.gguf")
    assert (code, said) == (4, r"tiny: 1 tensor is surplus for its config.json: \x1b[31mevil\x9b")


def moe(**changes: Any) -> bytes:
    from tests.runtime.gguf.test_reader import moe as sound

    return sound(**changes)


@pytest.mark.parametrize(
    ("data", "code", "problem"),
    [
        (b"vers" + b"ion https://git-lfs.github.com/spec/v1\n" * 9, 4, "x.gguf: "),
        (b"GGUF", 4, "x.gguf: "),
        (header(version=0), 4, "version 0"),
        (header(version=1), 7, "GGUF version 1"),
        (header(version=3 << 24), 7, "big-endian"),
        (header(tensor_count=2**62), 4, "claims 4611686018427387904 tensors"),
        (header([("a", 1), ("a", 2)]), 4, "the key a appears twice"),
        (header([("\x1b[31ma\x07", 1), ("\x1b[31ma\x07", 2)]), 4, r"the key \x1b[31ma\x07 appears twice"),
        (gguf(tensors=[T("t", (8,)), T("u", (8,), offset=0)]), 4, "it overlaps"),
        (gguf(llama_metadata(), llama_tensors())[:-200], 4, "are missing at the end"),
        (
            gguf(llama_metadata(**{"tokenizer.ggml.tokens": ["a", "b"]}), llama_tensors()),
            4,
            "shape [64, 8] instead of [64, 2]",
        ),
        (moe(**{"qwen3moe.expert_count": None}), 4, "is 0, but experts are used"),
        (moe(**{"qwen3moe.expert_used_count": 5}), 4, "is 5 of 4 experts"),
        (gguf(llama_metadata(**{"llama.rope.scaling.factor": V("f32", float("nan"))}), llama_tensors()), 4, "is nan"),
    ],
)
def test_a_bad_gguf(data: bytes, code: int, problem: str) -> None:
    Path("x.gguf").write_bytes(data)
    found, said = refused("x.gguf", "out.gguf", "-r", "q4_0")
    assert problem in said and found == code, (found, said)


def sound(path: Path, **changes: T) -> None:
    gguf_writer.write(path, llama_metadata(), [changes.get(each.name, each) for each in llama_tensors()])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(bad: float) -> None:
    values = np.zeros(64 * 8, np.float32)
    values[100] = bad
    sound(Path("x.gguf"), **{"token_embd.weight": T("token_embd.weight", (64, 8), data=values.tobytes())})
    for asked in (("-r", "q8_0"), ("--bpw", "6")):
        code, said = refused("x.gguf", "out.gguf", *asked)
        assert code == 4
        assert said.startswith("x.gguf: token_embd.weight: there are values that are not finite ")
    # What was written stays for the same command, under names that no reader takes for a model.
    assert {path.name for path in Path().glob("out*")} <= {"out.gguf.partial", "out.gguf.journal"}


def test_requests_that_cannot_be_met(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(nano_path, "mine.gguf")
    sound(Path("x.gguf"))
    entries = {"blk.0.ffn_down.weight": Entry(np.ones((1, 8), np.float32), np.ones(1, np.int64))}
    write(Path("other.gguf"), Imatrix(entries, ("text.txt",), 1, 512))
    Path("text.txt").write_text("no matrix")
    for arguments, code, problem in (
        (("mine.gguf", "out.gguf"), 2, "47 tensors are quantized already (Q8_0): "),
        (("mine.gguf", "mine.gguf", "--force", "--allow-requantize"), 2, "mine.gguf is the source itself"),
        (("x.gguf", "mine.gguf", "-r", "q8_0"), 2, "mine.gguf exists already"),
        (("mine.gguf", "out.gguf", "-r", "ud-iq1_s", "--allow-requantize"), 2, " needs an importance matrix"),
        (
            ("mine.gguf", "out.gguf", "-r", "q4_k_m", "--allow-requantize", "--imatrix", "other.gguf"),
            2,
            "the importance matrix is of another model: 8 values for blk.0.ffn_down.weight",
        ),
        (("mine.gguf", "out.gguf", "--imatrix", "text.txt"), 4, "text.txt: "),
        (("mine.gguf", "out.gguf", "--imatrix", "x.gguf"), 7, "x.gguf: "),
        (("mine.gguf", "out.gguf", "--imatrix", "none.gguf"), 3, "none.gguf: no such file"),
    ):
        found, said = refused(*arguments)
        assert problem in said and found == code, (arguments, found, said)
    monkeypatch.setattr(
        "quant.write.output.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 4096)
    )  # type: ignore[attr-defined]
    found, said = refused("mine.gguf", "out.gguf", "-r", "q4_0", "--allow-requantize")
    assert (found, said) == (5, ".: 6.68 MiB are needed, 4.00 KiB are free")


def test_rows_that_no_block_fits_are_a_warning(tmp_path: Path) -> None:
    tiny.deepseek_v3(tmp_path / "tiny")
    done = CliRunner().invoke(app, ["quantize", "tiny", "out.gguf", "-r", "q4_k_m"])
    assert done.exit_code == 0
    assert "do not divide into the blocks of the wanted type, so another is taken (Q4_K to " in done.stderr
