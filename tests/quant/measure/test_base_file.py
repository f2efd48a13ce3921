"""What a reference said, kept in a hundredth of the space: what is lost by that, and what is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.measure import base_file
from quant.measure.base_file import llama_size, read, write
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.divergence import Base, Report
from runtime.base.errors import DsrError, Incompatible, NotFound, VerificationFailed
from tests.corruption import corrupted_copies
from tests.quant.measure.test_divergence import ALTERNATING, FakeModel, logs, recorded

LETTERS = [Text("t", "0123456789" * 160)]


def tables(vocabulary: int, spread: float, seed: int = 1) -> tuple[FakeModel, FakeModel]:
    """A model whose output is as uneven as a real one's, and one that differs from it by so many nats."""
    random = np.random.default_rng(seed)
    table = random.normal(0, 3, (10, vocabulary))
    return FakeModel(table.tolist()), FakeModel((table + random.normal(0, spread, table.shape)).tolist())


def kept(path: Path, base: Base) -> base_file.KeptBase:
    write(path, base, "reference.gguf", "digest", "t")
    return read(path)


def both(path: Path, vocabulary: int, spread: float, text: list[Text] = LETTERS) -> tuple[Report, Report]:
    """What the whole base and the kept one say of one model."""
    model, other = tables(vocabulary, spread)
    with Base() as base:
        base.record(model, text, ChunkOptions(context=64))
        return base.compare(other), kept(path, base).compare(other, text)


@pytest.mark.parametrize("vocabulary", [640, 4096, 49_152])
def test_it_takes_a_hundredth_of_llama_perplexitys(tmp_path: Path, vocabulary: int) -> None:
    model, _ = tables(vocabulary, 0)
    with Base() as base:
        base.record(model, LETTERS, ChunkOptions(context=512, limit=3))
        size = write(tmp_path / "b", base, "reference.gguf", "d" * 64, "t")
    assert (tmp_path / "b").stat().st_size == size
    assert 0.008 < size / llama_size(vocabulary, 512, 3) <= 0.01


def test_the_size_of_llama_perplexitys_file() -> None:
    """As written by llama-perplexity -c 512 --chunks 2 --kl-divergence-base for the embedded model."""
    assert llama_size(640, 512, 2) == 20 + 2 * 512 * 4 + 2 * 255 * 1288


def test_the_bound_is_below_the_divergence_and_the_estimate_beside_it(tmp_path: Path) -> None:
    whole, small = both(tmp_path / "b", 640, 0.3)
    assert small.kld_bound is not None
    assert 0.3 * whole.kld.value < small.kld_bound.value < whole.kld.value
    assert abs(small.kld.value - whole.kld.value) < 3 * small.kld.error
    assert all(a <= b + 1e-6 for a, b in zip(small.kld_percentiles, whole.kld_percentiles, strict=True))


def test_what_does_not_need_the_whole_output_is_the_same(tmp_path: Path) -> None:
    whole, small = both(tmp_path / "b", 640, 0.3)
    assert small.perplexity == whole.perplexity
    assert small.base_perplexity.value == pytest.approx(whole.base_perplexity.value, rel=1e-9)
    assert small.log_ratio.value == pytest.approx(whole.log_ratio.value, abs=1e-9)
    assert small.same_top == whole.same_top
    assert small.probability_rms.value == pytest.approx(whole.probability_rms.value, rel=0.01)
    assert small.tokens == whole.tokens


def test_with_all_entries_it_is_exact(tmp_path: Path) -> None:
    """Of 2 entries both are kept, since one always is, and the tail is the other."""
    table, other = [logs(0.5, 0.5), logs(0.25, 0.75)], [logs(0.25, 0.75), logs(0.5, 0.5)]
    with recorded(FakeModel(table)) as base:
        whole = base.compare(FakeModel(other))
        small = kept(tmp_path / "b", base).compare(FakeModel(other), ALTERNATING)
    assert small.kld.value == pytest.approx(whole.kld.value, rel=1e-3)
    assert small.kld_bound is not None
    assert small.kld_bound.value == pytest.approx(whole.kld.value, rel=1e-3)


def test_a_model_does_not_diverge_from_itself(tmp_path: Path) -> None:
    _, small = both(tmp_path / "b", 4096, 0.0)
    assert abs(small.kld.value) < 1e-3
    assert small.kld_bound is not None
    assert abs(small.kld_bound.value) < 1e-5
    assert small.same_top.value == 1


def test_a_token_that_is_certain_has_no_tail(tmp_path: Path) -> None:
    certain = FakeModel([[0.0, -1e9, -1e9], [-1e9, 0.0, -1e9]])
    with recorded(certain, [Text("t", "0" * 64)]) as base:
        small = kept(tmp_path / "b", base).compare(certain, [Text("t", "0" * 64)])
    assert small.kld.value == 0
    assert small.perplexity.value == 1


def test_the_same_recording_gives_the_same_file(tmp_path: Path) -> None:
    model, _ = tables(640, 0)
    for name in ("a", "b"):
        with recorded(model, LETTERS) as base:
            write(tmp_path / name, base, "reference.gguf", "digest", "t")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.01, 3), vocabulary=st.integers(10, 2000))
def test_the_bound_never_exceeds_the_divergence(
    seed: int, spread: float, vocabulary: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, other = tables(vocabulary, spread, seed)
    text = [Text("t", "0123456789" * 10)]
    with Base() as base:
        base.record(model, text, ChunkOptions(context=32))
        whole = base.compare(other).kld.value
        small = kept(tmp_path_factory.mktemp("b") / "b", base).compare(other, text)
    assert small.kld_bound is not None
    assert small.kld_bound.value <= whole * 1.002 + 1e-5


def a_file(path: Path) -> bytes:
    with recorded(tables(64, 0)[0], LETTERS) as base:
        write(path, base, "reference.gguf", "digest", "t")
    return path.read_bytes()


def sealed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


def test_another_text_is_refused(tmp_path: Path) -> None:
    a_file(tmp_path / "b")
    model, _ = tables(64, 0)
    with pytest.raises(Incompatible, match="another text, or another tokenizer"):
        read(tmp_path / "b").compare(model, [Text("t", "9876543210" * 160)])


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    a_file(tmp_path / "b")
    with pytest.raises(Incompatible, match=r"65 tokens in its vocabulary, and its base 64"):
        read(tmp_path / "b").compare(tables(65, 0)[0], LETTERS)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"GGUF and so on")
    with pytest.raises(VerificationFailed, match="is no recording of a base model"):
        read(tmp_path / "b")
    with pytest.raises(NotFound, match="no such file"):
        read(tmp_path / "c")
    with pytest.raises(DsrError, match="cannot be read"):
        read(tmp_path)


def test_a_device_is_not_read_to_its_end() -> None:
    with pytest.raises(VerificationFailed, match="is no recording of a base model"):
        read(Path("/dev/zero"))


def test_damage_is_noticed(tmp_path: Path) -> None:
    data = a_file(tmp_path / "b")
    for what, copy in corrupted_copies(data, 7, 60):
        if copy != data:
            (tmp_path / "b").write_bytes(copy)
            with pytest.raises(VerificationFailed):
                read(tmp_path / "b")
                pytest.fail(what)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(vocabulary=2**31),
        lambda header: header.update(vocabulary=3),
        lambda header: header.update(context=2),
        lambda header: header.update(chunks=2**30),
        lambda header: header.update(chunks=True),
        lambda header: header.update(entries=0),
        lambda header: header.update(entries=header["entries"] + 1),
        lambda header: header.update(step=float("nan")),
        lambda header: header.update(loss=float("inf")),
        lambda header: header.update(count_bits=40),
        lambda header: header.update(text=5),
        lambda header: header.update(more=1),
        lambda header: header.pop("tokens"),
        dict.clear,
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, change: Change) -> None:
    """With a check sum that is right: somebody made it so."""
    data = a_file(tmp_path / "b")
    (length,) = struct.unpack_from("<I", data, 8)
    header = json.loads(data[12 : 12 + length])
    change(header)
    changed = json.dumps(header).encode()
    (tmp_path / "b").write_bytes(sealed(data[:8] + struct.pack("<I", len(changed)) + changed + data[12 + length : -32]))
    with pytest.raises(VerificationFailed, match="a damaged recording"):
        read(tmp_path / "b")


@settings(max_examples=100, deadline=None)
@given(at=st.floats(0, 1), value=st.integers(0, 255))
def test_columns_that_lie_are_refused_or_harmless(
    at: float, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "lying"
    data = bytearray(a_file(path)[:-32])
    start = 12 + struct.unpack_from("<I", data, 8)[0]
    data[min(len(data) - 1, start + int(at * (len(data) - start)))] = value
    path.write_bytes(sealed(bytes(data)))
    try:
        found = read(path)
    except VerificationFailed:
        return
    assert found.compare(tables(64, 0)[0], LETTERS).tokens > 0


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with recorded(tables(64, 0)[0], LETTERS) as base, pytest.raises(DsrError, match="cannot be written"):
        write(tmp_path / "b", base, "reference.gguf", "digest", "t")
    assert [each.name for each in tmp_path.iterdir()] == ["b"]
