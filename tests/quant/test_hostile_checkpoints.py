"""Hostile checkpoints are converted or refused in one line; tests/peers/hostile_checkpoints.py tries thousands."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from quant.convert.conversion import check_convertible, expected_tensors
from quant.open_source import open_source
from runtime.base.errors import BadModelFile, DsrError, Incompatible
from tests.quant import tiny
from tests.quant.hostile_checkpoints import hostile, hostile_configs, outcome


def test_hostile_checkpoints_end_in_a_file_or_in_one_line(tmp_path: Path) -> None:
    refused = 0
    for number, checkpoint in enumerate(hostile(100, seed=7)):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused += bool(outcome(checkpoint, folder))
    assert 30 < refused < 100


def test_a_hostile_key_of_any_class_is_laid_out_or_refused_in_one_line() -> None:
    refused = tried = 0
    for what, config in islice(hostile_configs(), 0, None, 89):
        tried += 1
        try:
            expected_tensors(config())
            check_convertible(config(), Path("config.json"))
        except DsrError as error:
            refused += 1
            assert "\n" not in error.message and len(error.message) < 1000, what
    assert 100 < refused < tried


def test_the_same_seed_gives_the_same_checkpoints() -> None:
    assert list(hostile(5, seed=1)) == list(hostile(5, seed=1))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"vocab_size": 2**31 - 1}, "vocab_size is 2147483647, not an integer from 1 to 4194304"),
        ({"num_attention_heads": 2**31 - 1}, "num_attention_heads is 2147483647, not an integer from 1 to 1024"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"hidden_size": 10**400}, "hidden_size is an integer of over 60 digits"),
        ({"rope_theta": float("nan")}, "rope_theta is nan, not a number"),
        ({"rope_theta": float("inf")}, "rope_theta is inf, not a number"),
        ({"rope_theta": 0}, "rope_theta is 0, not a number from 1e-30"),
        ({"rms_norm_eps": 2**64}, "rms_norm_eps is 18446744073709551616, not a number from 0 to below 1"),
        ({"n_routed_experts": 1024, "num_hidden_layers": 512}, "n_routed_experts 1024 and num_hidden_layers 512"),
        ({"n_group": 5}, "n_group 5 does not divide the"),
        ({"topk_group": 2, "n_group": 2}, "topk_group is 2 of n_group 2"),
        ({"num_local_experts": 7}, "num_local_experts is 7, but n_routed_experts is"),
        ({"scoring_func": "a" * 5000}, "scoring_func is 'aaaaaaaaaa"),
        ({"architectures": "DeepseekV3ForCausalLM"}, "architectures is missing"),
    ],
)
def test_a_number_that_no_model_has_is_refused_with_its_field(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    tiny.deepseek_v3(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text()) | change
    with pytest.raises(BadModelFile) as caught:
        check_convertible(config, Path("config.json"))
    assert problem in caught.value.message and len(caught.value.message) < 200


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    tiny.qwen3(tmp_path / "m")
    described = (tmp_path / "m" / "tokenizer.json").read_text()
    deep = '{"type": "Sequence", "pretokenizers": [' * 600 + "]}" * 600
    value = json.loads(described)
    value["pre_tokenizer"] = "PLACE"
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(value).replace('"PLACE"', deep))
    with pytest.raises(BadModelFile), open_source(tmp_path / "m"):
        pass


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page, not a safetensors file"),
        (b"GGUF\x03\0\0\0" + bytes(64), "a GGUF file, not a safetensors file"),
        (b"PK\x03\x04" + bytes(64), "a zip archive"),
        (bytes(4096), "a file of zeros only"),
        ((2**63).to_bytes(8, "little") + b"{}", "claims a header of 9223372036854775808 bytes"),
    ],
)
def test_weights_that_are_another_file_are_named_as_it(tmp_path: Path, raw: bytes, problem: str) -> None:
    tiny.qwen3(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(raw)
    with pytest.raises(BadModelFile, match=problem), open_source(tmp_path / "m"):
        pass


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pytorch_model.bin", "there are only pickle files"),
        ("consolidated.00.pth", "there are only pickle files"),
        ("m-Q4_0.gguf", "there are no weights, only config.json"),
        ("adapter_model.safetensors", "an adapter"),
        ("consolidated.safetensors", "in Mistral's own format"),
    ],
)
def test_a_dry_run_too_says_what_other_weights_are(tmp_path: Path, name: str, problem: str) -> None:
    tiny.qwen3(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / "training_args.bin").write_bytes(b"x")
    with open_source(tmp_path / "m", weights=False) as source:
        assert source.tensors
    (tmp_path / "m" / name).write_bytes(b"x")
    with pytest.raises(DsrError) as caught, open_source(tmp_path / "m", weights=False):
        pass
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("base_model.model.layers.0.q_proj.lora_A.weight", "an adapter"),
        ("model.layers.0.self_attn.q_proj.qweight", "quantized by 'gptq or awq'"),
        ("model.layers.0.self_attn.q_proj.weight.absmax", "quantized by 'bitsandbytes'"),
    ],
)
def test_tensors_tell_what_config_json_does_not(tmp_path: Path, name: str, problem: str) -> None:
    tiny.qwen3(tmp_path / "m")
    tiny.write_safetensors(tmp_path / "m" / "model.safetensors", {name: ("F16", (1,), b"\0\0")})
    with pytest.raises(Incompatible, match=problem), open_source(tmp_path / "m"):
        pass


def test_tens_of_thousands_of_tensors_in_a_header_are_refused_in_one_line(tmp_path: Path) -> None:
    """A header of a few megabytes; the work follows its length."""
    tiny.qwen3(tmp_path / "m")
    header = {f"t{number}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for number in range(50_000)}
    tiny.write_raw(tmp_path / "m" / "model.safetensors", header)
    with pytest.raises(DsrError) as caught, open_source(tmp_path / "m"):
        pass
    assert "\n" not in caught.value.message and len(caught.value.message) < 1000
