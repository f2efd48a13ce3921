"""Mixtral (MixtralForCausalLM): Llama with routed experts, which llama.cpp calls llama as well."""

from __future__ import annotations

from gguf import Keys

from quant.convert import blocks, llama
from quant.convert.config import Config
from quant.convert.layout import Layout
from quant.convert.metadata import Metadata

# configuration_mixtral.py of transformers 4.57
DEFAULTS = {
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def layout(config: Config) -> Layout:
    made = Layout("llama", config)
    experts, width = config.experts("num_local_experts"), config.integer("intermediate_size")
    blocks.embedding(made)
    for number in range(config.layers):
        layer = f"model.layers.{number}"
        blocks.norms(made, layer)
        blocks.attention(made, layer, in_pairs=True)
        prefix = f"{layer}.block_sparse_moe"
        made.plain(f"{prefix}.gate.weight", experts, config.hidden)
        # w1 is the gate, w2 the way down, w3 the way up
        made.stacks(
            (
                f"layers.{number}.feed_forward.experts.{name}.weight",
                [f"{prefix}.experts.{expert}.{name}.weight" for expert in range(experts)],
                rows,
                columns,
            )
            for name, rows, columns in (
                ("w1", width, config.hidden),
                ("w2", config.hidden, width),
                ("w3", width, config.hidden),
            )
        )
    blocks.output(made)
    return made


def describe(metadata: Metadata) -> None:
    if metadata.config.has("head_dim"):
        metadata.u32(Keys.Attention.KEY_LENGTH, metadata.config.head_length)
        metadata.u32(Keys.Attention.VALUE_LENGTH, metadata.config.head_length)
    llama.rotary(metadata)
