"""Tokens that the model has no embedding for."""

from __future__ import annotations

import struct
from pathlib import Path

from quant.convert.conversion import source_of
from quant.sources.checkpoint import open_checkpoint
from tests.quant.tiny_models import make_tiny

_KEY = "tokenizer.ggml.suppress_tokens"


def test_tokens_without_an_embedding_are_listed(tmp_path: Path) -> None:
    make_tiny("MiniMaxM1ForCausalLM", tmp_path / "m")
    (entry,) = (each for each in source_of(open_checkpoint(tmp_path / "m")).metadata if each.key == _KEY)
    assert entry.encoded.endswith(struct.pack("<3i", 269, 270, 271))


def test_other_families_have_no_such_list(tmp_path: Path) -> None:
    make_tiny("MiniMaxM2ForCausalLM", tmp_path / "m")
    assert all(each.key != _KEY for each in source_of(open_checkpoint(tmp_path / "m")).metadata)
