"""What is written is read again, and what was changed on the disk is noticed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dsr.store.state_file import Head, pieces, read_head, read_state, size_of
from runtime.base.errors import VerificationFailed
from runtime.engine.backend import Checkpoint
from runtime.engine.kept_state import KeptState

MODEL, OTHER = "ab" * 32, "cd" * 32
KEPT = KeptState((7, 8, 4294967295), b"state", (Checkpoint(1, 2, b"xy"), Checkpoint(3, 1, b"z")))
# magic, version 1, 3 tokens, 2 checkpoints, 5 bytes of state, identity; tokens; lengths and sizes; state; checkpoints
CONTENT = (
    b"DSRSTATE" + bytes.fromhex("01000000 03000000 02000000 0500000000000000") + b"\xab" * 32 + bytes(4)
    + bytes.fromhex("07000000 08000000 ffffffff")
    + bytes.fromhex("01000000 0200000000000000 03000000 0100000000000000")
    + b"state" + b"xy" + b"z"
)  # fmt: skip


def written(folder: Path, content: bytes) -> Path:
    path = folder / "a.state"
    path.write_bytes(content)
    return path


def sealed(content: bytes) -> bytes:
    return content + struct.pack("<I", zlib.crc32(content))


def test_the_bytes_of_a_file(tmp_path: Path) -> None:
    assert b"".join(pieces(KEPT, MODEL)) == sealed(CONTENT)
    assert size_of(KEPT) == len(sealed(CONTENT)) == 64 + 12 + 24 + 8 + 4
    path = written(tmp_path, sealed(CONTENT))
    assert read_state(path, MODEL) == KEPT
    assert read_head(path, MODEL) == Head((7, 8, 4294967295), ((1, 2), (3, 1)), 5)


@given(
    tokens=some.lists(some.integers(0, 2**32 - 1), max_size=40),
    state=some.binary(max_size=60),
    checkpoints=some.lists(some.tuples(some.integers(1, 40), some.binary(max_size=9)), unique_by=lambda each: each[0]),
)
def test_any_state_comes_back(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[int], state: bytes, checkpoints: list[tuple[int, bytes]]
) -> None:
    marks = sorted(each for each in checkpoints if each[0] <= len(tokens))
    kept = KeptState(tuple(tokens), state, tuple(Checkpoint(length, len(data), data) for length, data in marks))
    content = b"".join(pieces(kept, MODEL))
    assert len(content) == size_of(kept)
    assert read_state(written(tmp_path_factory.getbasetemp(), content), MODEL) == kept


def test_each_changed_byte_and_each_cut_is_noticed(tmp_path: Path) -> None:
    whole = sealed(CONTENT)
    for at in range(len(whole)):
        path = written(tmp_path, whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
        with pytest.raises(VerificationFailed):
            read_state(path, MODEL)
        with pytest.raises(VerificationFailed):
            read_state(written(tmp_path, whole[:at]), MODEL)
    with pytest.raises(VerificationFailed):
        read_state(written(tmp_path, whole + b"\0"), MODEL)


def test_a_file_of_another_model_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, sealed(CONTENT))
    for read in (read_head, read_state):
        with pytest.raises(VerificationFailed) as caught:
            read(path, OTHER)
        assert caught.value.message == f"{path}: is not a state of this model in this dsr"


@pytest.mark.parametrize(
    ("at", "number", "problem"),
    [
        (12, "ffffffff", "ends after 112 bytes"),  # 16 GiB of tokens
        (16, "ffffffff", "ends after 112 bytes"),  # 48 GiB of checkpoints
        (20, "ffffffffffffffff", "ends after 112 bytes"),  # of state
        (80, "ffffffffffffffff", "the sizes in it contradict each other"),  # of the first checkpoint
        (76, "03000000", "the sizes in it contradict each other"),  # two checkpoints at one length
        (88, "04000000", "the sizes in it contradict each other"),  # a checkpoint behind the tokens
        (76, "00000000", "the sizes in it contradict each other"),  # a checkpoint of nothing
    ],
)
def test_a_count_is_believed_only_if_the_file_is_as_large(tmp_path: Path, at: int, number: str, problem: str) -> None:
    forged = bytes.fromhex(number)
    path = written(tmp_path, sealed(CONTENT[:at] + forged + CONTENT[at + len(forged) :]))
    for read in (read_head, read_state):
        with pytest.raises(VerificationFailed) as caught:
            read(path, MODEL)
        assert caught.value.message == f"{path}: {problem}"


def test_how_much_of_a_prompt_a_state_spares() -> None:
    plain, marked = Head((1, 2, 3, 4), (), 9), Head((1, 2, 3, 4), ((1, 5), (3, 5)), 9)

    def of(head: Head, *tokens: int, cuts: bool) -> int:
        return head.reaches(tokens, cuts_anywhere=cuts)

    assert [of(plain, 1, 2, 3, 4, 5, cuts=True), of(marked, 1, 2, 3, 4, 5, cuts=False)] == [4, 4]
    # The last token of a prompt is always decoded.
    assert [of(plain, 1, 2, 3, 4, cuts=True), of(marked, 1, 2, 3, 4, cuts=False)] == [3, 3]
    assert [of(plain, 1, 2, 9, 9, cuts=True), of(marked, 1, 2, 9, 9, cuts=False)] == [2, 1]
    assert [of(plain, 1, 2, 3, 9, cuts=False), of(marked, 9, cuts=False), of(plain, cuts=True)] == [0, 0, 0]
