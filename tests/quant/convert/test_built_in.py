"""A setting that the engine's graph has built in differently is refused, before anything is downloaded or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quant.convert.conversion import check_convertible
from runtime.base.errors import BadModelFile, Incompatible
from tests.quant.tiny_models import MODELS, config_of


def problem(name: str, **change: Any) -> str:
    config = config_of(name)
    config.get("text_config", config).update(change)
    with pytest.raises((Incompatible, BadModelFile)) as caught:
        check_convertible(config, Path("config.json"))
    return caught.value.message


@pytest.mark.parametrize("name", MODELS)
def test_every_tiny_model_is_what_the_engine_computes(name: str) -> None:
    check_convertible(config_of(name), Path("config.json"))


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_activation_is_refused(name: str) -> None:
    assert "hidden_act is 'prelu', which the engine does not compute for " in problem(name, hidden_act="prelu")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Qwen3MoeForCausalLM", {"norm_topk_prob": False}),
        ("Qwen2MoeForCausalLM", {"norm_topk_prob": True}),
        ("KimiLinearForCausalLM", {"moe_renormalize": False}),
        ("AfmoeForCausalLM", {"mup_enabled": False}),
        ("DeepseekV3ForCausalLM", {"rope_interleave": False}),
        ("Gemma3ForCausalLM", {"query_pre_attn_scalar": 144}),
        ("Gemma3ForCausalLM", {"use_bidirectional_attention": True}),
        ("Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0}),
        ("GraniteMoeHybridForCausalLM", {"position_embedding_type": "rope"}),
        ("GraniteMoeHybridForCausalLM-attention", {"position_embedding_type": "nope"}),
        ("SmolLM3ForCausalLM", {"no_rope_layer_interval": 2}),
        ("Llama4ForConditionalGeneration", {"attention_chunk_size": 4096}),
        ("Lfm2MoeForCausalLM", {"routed_scaling_factor": 2.5}),
        ("Qwen2ForCausalLM", {"use_sliding_window": True}),
        ("Mamba2ForCausalLM", {"time_step_limit": [0.001, 0.1]}),
        ("LlamaForCausalLM", {"clip_qkv": 8.0}),
        ("RWKV7ForCausalLM", {"head_dim": 16}),
    ],
)
def test_a_setting_that_the_graph_has_otherwise_is_refused(name: str, change: dict[str, Any]) -> None:
    assert f"{next(iter(change))} is " in problem(name, **change)


def test_layers_with_a_window_need_a_key_for_it() -> None:
    kinds = ["sliding_attention"] * 8
    assert "layer_types is 'sliding_attention'" in problem("Qwen3ForCausalLM", layer_types=kinds)


def test_a_partial_rotation_needs_a_key_for_it() -> None:
    assert "partial_rotary_factor is 0.5" in problem("Qwen3ForCausalLM", partial_rotary_factor=0.5)


def test_llama_3_s_scaling_needs_a_tensor_of_factors() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0}
    assert "rope_type is 'llama3'" in problem("Qwen3ForCausalLM", rope_scaling=scaling)


@pytest.mark.parametrize("change", [{"num_attention_heads": 3, "head_dim": 16}, {"num_hidden_layers": [0]}])
def test_sizes_that_no_graph_has_are_refused_with_their_key(change: dict[str, Any]) -> None:
    assert f"{next(iter(change))} " in problem("Qwen3ForCausalLM", **change)


def test_a_size_of_zero_that_others_are_divided_by_is_refused() -> None:
    assert "a size is 0" in problem("DeciLMForCausalLM", num_attention_heads=[0])


def test_layers_may_have_the_names_of_transformers_5() -> None:
    config = config_of("GraniteMoeHybridForCausalLM")
    names = {"attention": "full_attention", "mamba": "linear_attention"}
    config["layer_types"] = [names[each] for each in config["layer_types"]]
    check_convertible(config, Path("config.json"))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("FalconH1ForCausalLM", "mamba_d_ssm"),
        ("FalconH1ForCausalLM", "mamba_n_groups"),
        ("Qwen3NextForCausalLM", "linear_key_head_dim"),
        ("Qwen3_5ForCausalLM", "linear_value_head_dim"),
        ("Ernie4_5_MoeForCausalLM", "moe_num_shared_experts"),
    ],
)
def test_the_price_of_a_layout_is_bounded(name: str, key: str) -> None:
    """Each of these once took all memory, or a number that a file cannot hold."""
    assert "its sizes " in problem(name, **{key: 2**31 - 1})


def test_many_layers_of_long_heads_are_too_many_rows_to_move() -> None:
    sizes = {"num_hidden_layers": 512, "num_attention_heads": 1024, "num_key_value_heads": 1024, "head_dim": 16384}
    assert "would move more than 8388608 rows" in problem("LlamaForCausalLM", **sizes)
