"""An adapter that does not fit is one line before the engine reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.gguf import writer
from runtime.base.errors import DsrError, Incompatible
from runtime.gguf.adapter import read_adapter
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from tests.lora import pair, write_lora

Q = "blk.0.attn_q_a.weight"
EXPERTS = "blk.1.ffn_down_exps.weight"


@pytest.fixture(scope="module")
def card(nano_path: Path) -> ModelCard:
    return read_card(nano_path)


def test_an_adapter_that_fits_has_a_digest_of_the_whole_file(card: ModelCard, tmp_path: Path) -> None:
    table = {"token_embd.weight.lora_a": np.ones((640, 4)), "token_embd.weight.lora_b": np.ones((256, 4))}
    tensors = {**pair(Q, (256, 256)), **pair(EXPERTS, (256, 256, 16), 2), **table}
    one = read_adapter(write_lora(tmp_path / "one.gguf", "deepseek2", tensors), 0.5, card)
    assert (one.scale, one.size, len(one.digest)) == (0.5, (tmp_path / "one.gguf").stat().st_size, 64)
    tensors[f"{Q}.lora_a"] = tensors[f"{Q}.lora_a"] + 1e-3
    other = read_adapter(write_lora(tmp_path / "other.gguf", "deepseek2", tensors), 0.5, card)
    assert one.digest != other.digest
    assert "one.gguf" not in repr(one) and one.digest in repr(one)


@pytest.mark.parametrize(
    ("tensors", "given", "problem"),
    [
        (pair(Q, (256, 256)), {"kind": "model"}, "not a LoRA adapter: its general.type is model"),
        (pair(Q, (256, 256)), {"method": "dora"}, "an adapter of type dora; the engine knows lora only"),
        (pair(Q, (256, 256)), {"architecture": "llama"}, "an adapter for llama, and Nano is deepseek2"),
        ({}, {}, "an adapter without tensors"),
        ({"x.weight": np.ones((2, 2))}, {}, "x.weight is not a tensor of a LoRA adapter"),
        ({f"{Q}.lora_a": np.ones((4, 256))}, {}, f"{Q}.lora_b is missing"),
        ({f"{Q}.lora_b": np.ones((256, 4))}, {}, f"{Q}.lora_a is missing"),
        (pair("blk.9.attn_q_a.weight", (256, 256)), {}, "blk.9.attn_q_a.weight, which Nano does not have"),
        (pair(Q, (256, 128)), {}, r"is \(256, 4\) and \(4, 128\); that does not fit \(256, 256\)"),
        (pair(Q, (128, 256)), {}, "that does not fit"),
        (pair(EXPERTS, (256, 256, 8)), {}, "that does not fit"),
        (pair(EXPERTS, (256, 256)), {}, "that does not fit"),
        ({f"{Q}.lora_a": np.ones((4, 256)), f"{Q}.lora_b": np.ones((256, 8))}, {}, "that does not fit"),
        ({f"{Q}.lora_a": np.ones(256), f"{Q}.lora_b": np.ones(256)}, {}, "that does not fit"),
        (pair("token_embd.weight", (256, 640)), {}, "that does not fit"),
        (pair(Q, (256, 256)), {"types": {f"{Q}.lora_a": "I32"}}, "is I32; adapters have F32, F16, BF16, Q8_0"),
        (pair(Q, (256, 256)), {"alpha": float("nan")}, "is nan, not a finite number"),
        (pair(Q, (256, 256)), {"more": (writer.i32s("adapter.alora.invocation_tokens", [1]),)}, "an activated LoRA"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    card: ModelCard, tmp_path: Path, tensors: dict[str, Any], given: dict[str, Any], problem: str
) -> None:
    architecture = given.pop("architecture", "deepseek2")
    path = write_lora(tmp_path / "a.gguf", architecture, tensors, **given)
    with pytest.raises(DsrError, match=problem) as caught:
        read_adapter(path, 1.0, card)
    assert caught.value.message.startswith(str(path))


def test_a_model_and_a_cut_file_are_no_adapters(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"not a LoRA adapter: its general.type is model"):
        read_adapter(card.path, 1.0, card)
    path = write_lora(tmp_path / "a.gguf", "deepseek2", pair(Q, (256, 256)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DsrError, match=r"a\.gguf"):
        read_adapter(path, 1.0, card)
    with pytest.raises(DsrError, match=r"nothing\.gguf"):
        read_adapter(tmp_path / "nothing.gguf", 1.0, card)
