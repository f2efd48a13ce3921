"""LoRA adapters in the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.base.errors import EngineFailed
from runtime.gguf.adapter import Adapter, read_adapter
from runtime.gguf.reader import read_card
from runtime.llama import LlamaBackend, OpenOptions
from tests.lora import pair, write_lora
from tests.runtime.native_engine import LIMITS, SUM, asked, batch, row_of, trial_process

HEAD, DOWN = "output.weight", "blk.2.ffn_down_shexp.weight"


def adapter(
    folder: Path, nano: Path, tensors: dict[str, Any], scale: float = 1.0, name: str = "a", **more: Any
) -> Adapter:
    path = write_lora(folder / f"{name}.gguf", "deepseek2", tensors, **more)
    return read_adapter(path, scale, read_card(nano))


def logits(nano: Path, *adapters: Adapter) -> np.ndarray:
    with LlamaBackend(nano, OpenOptions(context=256, adapters=adapters)) as backend:
        tokens = backend.tokenize(asked(SUM))
        backend.decode(batch(tokens))
        return row_of(backend, len(tokens) - 1)


def test_the_effect_of_an_adapter_grows_with_its_scale_and_alpha(nano_path: Path, tmp_path: Path) -> None:
    tensors = pair(DOWN, (256, 256))
    base = logits(nano_path)
    one = logits(nano_path, adapter(tmp_path, nano_path, tensors))
    assert np.abs(one - base).max() > 0.1
    assert logits(nano_path, adapter(tmp_path, nano_path, tensors, 0.5, alpha=16.0)).tolist() == one.tolist()
    assert logits(nano_path, adapter(tmp_path, nano_path, tensors, 0.0)).tolist() == base.tolist()
    little = logits(nano_path, adapter(tmp_path, nano_path, tensors, 0.01))
    assert 0 < np.abs(little - base).max() < np.abs(one - base).max() / 10


def test_several_adapters_add_up(nano_path: Path, tmp_path: Path) -> None:
    halves = [adapter(tmp_path, nano_path, pair(DOWN, (256, 256)), 0.5, name=name) for name in "ab"]
    whole = logits(nano_path, adapter(tmp_path, nano_path, pair(DOWN, (256, 256))))
    assert logits(nano_path, *halves) == pytest.approx(whole, abs=1e-3)


def test_layers_experts_and_the_token_table_can_have_adapters(nano_path: Path, tmp_path: Path) -> None:
    base = logits(nano_path)
    table = {"token_embd.weight.lora_a": np.full((640, 4), 0.2), "token_embd.weight.lora_b": np.full((256, 4), 0.2)}
    for tensors in (
        pair("blk.0.attn_output.weight", (256, 256)),
        pair("blk.1.ffn_down_exps.weight", (256, 256, 16)),
        table,
    ):
        found = logits(nano_path, adapter(tmp_path, nano_path, tensors))
        assert np.isfinite(found).all() and np.abs(found - base).max() > 1e-3


def test_an_adapter_that_the_engine_would_ignore_in_part_is_refused(nano_path: Path, tmp_path: Path) -> None:
    """deepseek2 multiplies by these weights without adapters (src/models/deepseek2.cpp)."""
    tensors = {**pair(DOWN, (256, 256)), **pair("blk.0.attn_q_a.weight", (256, 256)), **pair(HEAD, (256, 640))}
    ignored = adapter(tmp_path, nano_path, tensors)
    with pytest.raises(EngineFailed, match=r"does not apply this adapter to blk.0.attn_q_a.weight, output.weight"):
        trial_process.try_in_child(nano_path, OpenOptions(context=512, adapters=(ignored,)), LIMITS)


def test_a_trial_opens_the_adapters_too(nano_path: Path, tmp_path: Path) -> None:
    sound = adapter(tmp_path, nano_path, pair(DOWN, (256, 256)))
    trial_process.try_in_child(nano_path, OpenOptions(context=512, adapters=(sound,)), LIMITS)
    path = write_lora(tmp_path / "b.gguf", "deepseek2", pair(HEAD, (256, 639)))
    wrong = Adapter(path, 1.0, "", sound.size)
    with pytest.raises(EngineFailed, match="incorrect shape"):
        trial_process.try_in_child(nano_path, OpenOptions(context=512, adapters=(wrong,)), LIMITS)
    # The engine does not check this and would end the process.
    flipped = {"token_embd.weight.lora_a": np.ones((640, 4)), "token_embd.weight.lora_b": np.ones((256, 8))}
    path = write_lora(tmp_path / "c.gguf", "deepseek2", flipped)
    with pytest.raises(EngineFailed, match="it crashes the engine"):
        trial_process.try_in_child(
            nano_path, OpenOptions(context=512, adapters=(Adapter(path, 1.0, "", sound.size),)), LIMITS
        )
