"""Files that several threads map and read."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.sources.checkpoint import open_checkpoint
from quant.sources.mapped import MappedFiles
from tests.quant.tiny_models import make_tiny


def test_threads_that_map_a_file_at_once_share_one_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny("Qwen3ForCausalLM", tmp_path / "m")
    tensor = open_checkpoint(tmp_path / "m").tensors["model.norm.weight"]
    files, original = MappedFiles(), mmap.mmap
    maps: list[mmap.mmap] = []

    def map_and_be_late(*arguments: Any, **options: Any) -> mmap.mmap:
        """Another thread maps and reads the file before this map is kept."""
        made = original(*arguments, **options)
        maps.append(made)
        if len(maps) == 1:
            files.rows(tensor, 0, 1)
        return made

    monkeypatch.setattr(mmap, "mmap", map_and_be_late)
    read = np.empty(tensor.width, np.float32)
    files.floats(tensor, 0, read)
    assert len(maps) == 2
    assert list(files._maps.values()) == [maps[1]]
    np.testing.assert_array_equal(read, (files.rows(tensor, 0, 1)[0].astype(np.uint32) << 16).view(np.float32))
