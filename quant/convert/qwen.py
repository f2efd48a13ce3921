"""Qwen 2, 2.5 and 3 (Qwen2ForCausalLM, Qwen3ForCausalLM, Qwen3MoeForCausalLM) and the R1 distillations of Qwen."""

from __future__ import annotations

from gguf import Keys

from quant.convert import blocks
from quant.convert.config import Config
from quant.convert.layout import Layout
from quant.convert.metadata import Metadata

# configuration_qwen2.py, configuration_qwen3.py and configuration_qwen3_moe.py of transformers 4.57
DEFAULTS_2 = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}
DEFAULTS_3 = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "head_dim": 128}
DEFAULTS_3_MOE = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
}


def layout_2(config: Config) -> Layout:
    made = Layout("qwen2", config)
    blocks.embedding(made)
    for number in range(config.layers):
        layer = f"model.layers.{number}"
        blocks.norms(made, layer)
        blocks.attention(made, layer, in_pairs=False, qkv_bias=True)
        blocks.feed_forward(made, f"{layer}.mlp", config.integer("intermediate_size"))
    blocks.output(made)
    return made


def layout_3(config: Config) -> Layout:
    return _layout_3("qwen3", config, experts=0)


def layout_3_moe(config: Config) -> Layout:
    return _layout_3("qwen3moe", config, experts=config.experts("num_experts"))


def _layout_3(architecture: str, config: Config, experts: int) -> Layout:
    made = Layout(architecture, config)
    blocks.embedding(made)
    bias = config.flag("attention_bias")
    for number in range(config.layers):
        layer = f"model.layers.{number}"
        blocks.norms(made, layer)
        blocks.attention(made, layer, in_pairs=False, qkv_bias=bias, output_bias=bias, norm=True)
        if experts and _is_sparse(config, number):
            made.plain(f"{layer}.mlp.gate.weight", experts, config.hidden)
            blocks.experts(made, f"{layer}.mlp.experts", experts, config.integer("moe_intermediate_size"))
        else:
            blocks.feed_forward(made, f"{layer}.mlp", config.integer("intermediate_size"))
    blocks.output(made)
    return made


def _is_sparse(config: Config, layer: int) -> bool:
    """Whether this layer has experts (Qwen3MoeDecoderLayer in modeling_qwen3_moe.py of transformers)"""
    return layer not in config.integers("mlp_only_layers") and (layer + 1) % config.integer("decoder_sparse_step") == 0


def describe(metadata: Metadata) -> None:
    if metadata.config.has("head_dim"):
        metadata.u32(Keys.Attention.KEY_LENGTH, metadata.config.head_length)
        metadata.u32(Keys.Attention.VALUE_LENGTH, metadata.config.head_length)


def describe_moe(metadata: Metadata) -> None:
    describe(metadata)
    metadata.u32(Keys.LLM.EXPERT_FEED_FORWARD_LENGTH, metadata.config.integer("moe_intermediate_size"))
    if metadata.config.has("shared_expert_intermediate_size"):
        width = metadata.config.integer("shared_expert_intermediate_size", least=0)
        metadata.u32(Keys.LLM.EXPERT_SHARED_FEED_FORWARD_LENGTH, width)
