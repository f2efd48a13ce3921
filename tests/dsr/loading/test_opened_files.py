import os
from pathlib import Path

import pytest

from dsr.loading.opened_files import OpenedFiles


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "big.gguf"
    path.write_bytes(b"weights")
    return path


def test_a_file_that_takes_the_name_is_told_once(model: Path) -> None:
    opened = OpenedFiles([model])
    assert opened.note() is None
    other = model.with_name("other")
    other.write_bytes(b"other weights")
    other.rename(model)
    assert opened.note() == (
        f"{model} is another file now; answers go on with the file that was opened, until you start dsr again"
    )
    assert opened.note() is None


def test_a_file_that_was_moved_is_told(model: Path) -> None:
    opened = OpenedFiles([model])
    model.rename(model.with_name("elsewhere"))
    assert (opened.note() or "").startswith(f"{model} was moved or deleted; ")


def test_a_change_within_the_file_is_told_by_who_reads_it(model: Path) -> None:
    opened = OpenedFiles([model])
    model.write_bytes(b"changed")
    assert opened.note() is None


def test_a_new_number_of_the_same_file_is_nothing(model: Path) -> None:
    """A file system over the network may number its files again."""
    opened = OpenedFiles([model])
    facts, copy = model.stat(), model.with_name("copy")
    copy.write_bytes(b"weights")
    os.utime(copy, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    copy.rename(model)
    assert opened.note() is None


def test_a_model_without_files_has_nothing_to_tell() -> None:
    assert OpenedFiles([Path("/nowhere/x.gguf")]).note() is None
