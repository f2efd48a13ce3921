from pathlib import Path

import pytest

from runtime.base.errors import WeightsLost
from runtime.base.types import ByteCount
from runtime.from_disk import preread as module
from runtime.from_disk.preread import forget, preread
from runtime.gguf.header import TensorInfo

MIB = 1 << 20


def tensor(name: str, offset: int, size: int, file: int = 0) -> TensorInfo:
    return TensorInfo(name, (size,), "I8", offset, ByteCount(size), file)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_bytes(bytes(3 * MIB))
    return paths


TENSORS = [tensor("late", 2 * MIB, MIB - 7), tensor("other", 5, 10, file=1), tensor("long", 100, MIB + 1)]


def test_each_byte_is_read_once_in_the_order_of_the_file(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.from_disk.reader._THREADS", 1)
    seen: list[tuple[str, int, int]] = []
    real = module.ReadFile.read

    def read(self: module.ReadFile, memory: memoryview, span: module.Span, going: object) -> bool:
        seen.append((self.path.name, span.offset, span.length))
        return real(self, memory, span)

    monkeypatch.setattr(module.ReadFile, "read", read)
    told: list[int] = []
    assert preread(files, TENSORS, lambda: False, told.append)
    assert seen == [("one", 100, MIB), ("one", 100 + MIB, 1), ("one", 2 * MIB, MIB - 7), ("two", 5, 10)]
    assert told == [MIB + 1, 2 * MIB - 6, 2 * MIB + 4]
    forget(files)


def test_a_stop_ends_it_between_two_pieces(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.from_disk.reader._THREADS", 0)  # nothing ever comes
    assert not preread(files, TENSORS, lambda: True, lambda _: None)


def test_a_file_that_is_shorter_than_its_header_says_is_told(files: list[Path]) -> None:
    with pytest.raises(WeightsLost, match="was cut"):
        preread(files, [tensor("beyond", 3 * MIB, 10)], lambda: False, lambda _: None)
