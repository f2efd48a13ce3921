"""DeepSeek V2, V2.5, V3 and R1 (DeepseekV2ForCausalLM, DeepseekV3ForCausalLM): compressed attention (MLA) in its
absorbed form, leading dense layers, shared and routed experts."""

from __future__ import annotations

from gguf import MODEL_TENSOR, TENSOR_NAMES, Keys

from quant.convert import blocks
from quant.convert.config import Config
from quant.convert.layout import Layout
from quant.convert.metadata import Metadata
from runtime.gguf.engine_lists import MOST_EXPERTS

# configuration_deepseek_v2.py and configuration_deepseek_v3.py of transformers 4.57. V3 has the router's bias always.
_BOTH: dict[str, object] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "moe_layer_freq": 1,
}
_BOTH |= {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
DEFAULTS_2 = _BOTH | {"first_k_dense_replace": 0, "n_routed_experts": 64, "n_shared_experts": 2}
DEFAULTS_2 |= {"routed_scaling_factor": 1.0, "norm_topk_prob": False, "topk_method": "greedy"}
DEFAULTS_2 |= {"moe_intermediate_size": 1407}
DEFAULTS_3 = _BOTH | {"first_k_dense_replace": 3, "n_routed_experts": 256, "n_shared_experts": 1}
DEFAULTS_3 |= {"routed_scaling_factor": 2.5, "norm_topk_prob": True, "topk_method": "noaux_tc"}
DEFAULTS_3 |= {"moe_intermediate_size": 2048, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4}


def layout(config: Config) -> Layout:
    made = Layout("deepseek2", config)
    blocks.embedding(made)
    for number in range(config.layers + config.mtp_layers):
        layer = f"model.layers.{number}"
        blocks.norms(made, layer)
        _attention(made, f"{layer}.self_attn")
        if _is_sparse(config, number):
            _mixture(made, f"{layer}.mlp")
        else:
            blocks.feed_forward(made, f"{layer}.mlp", config.integer("intermediate_size"))
        if number >= config.layers:
            _prediction(made, number)
    blocks.output(made, keep_tied=False)
    return made


def _is_sparse(config: Config, layer: int) -> bool:
    """Whether this layer has experts (DeepseekV3DecoderLayer in modeling_deepseek.py of deepseek-ai/DeepSeek-V3)"""
    dense = config.integer("first_k_dense_replace", 0, least=0)
    return config.has("n_routed_experts") and layer >= dense and layer % config.integer("moe_layer_freq") == 0


def _attention(made: Layout, prefix: str) -> None:
    config = made.config
    heads, hidden, rank = config.heads, config.hidden, config.integer("kv_lora_rank")
    plain, rotary = config.integer("qk_nope_head_dim"), config.integer("qk_rope_head_dim")
    value, bias = config.integer("v_head_dim"), config.flag("attention_bias")
    if config.has("q_lora_rank"):
        query_rank = config.integer("q_lora_rank")
        made.plain(f"{prefix}.q_a_proj.weight", query_rank, hidden)
        if bias:
            made.plain(f"{prefix}.q_a_proj.bias", query_rank)
        made.plain(f"{prefix}.q_a_layernorm.weight", query_rank)
        made.plain(f"{prefix}.q_b_proj.weight", heads * (plain + rotary), query_rank)
    else:
        made.plain(f"{prefix}.q_proj.weight", heads * (plain + rotary), hidden)
    made.plain(f"{prefix}.kv_a_proj_with_mqa.weight", rank + rotary, hidden)
    if bias:
        made.plain(f"{prefix}.kv_a_proj_with_mqa.bias", rank + rotary)
    made.plain(f"{prefix}.kv_a_layernorm.weight", rank)
    made.compressed_keys_and_values(f"{prefix}.kv_b_proj.weight", heads, plain, value, rank)
    made.plain(f"{prefix}.o_proj.weight", hidden, heads * value)
    if bias:
        made.plain(f"{prefix}.o_proj.bias", hidden)


def _mixture(made: Layout, prefix: str) -> None:
    config = made.config
    routed, width = config.experts("n_routed_experts"), config.integer("moe_intermediate_size")
    shared = config.integer("n_shared_experts", 0, least=0, most=MOST_EXPERTS)
    made.plain(f"{prefix}.gate.weight", routed, config.hidden)
    if config.text("topk_method") == "noaux_tc":
        made.plain(f"{prefix}.gate.e_score_correction_bias", routed)
    blocks.experts(made, f"{prefix}.experts", routed, width)
    if shared:
        blocks.feed_forward(made, f"{prefix}.shared_experts", shared * width)


def _prediction(made: Layout, layer: int) -> None:
    """Add the other tensors of a layer for multi-token prediction: its embeddings and output, which are copies, and
    what joins the hidden state with the next token's embedding (section 2.2 of arXiv 2412.19437).

    llama.cpp's converter leaves these layers out for this architecture and keeps them for the next (DeepSeek-V3.2);
    the engine reads them of both, under the same names.
    """
    hidden, vocabulary = made.config.hidden, made.config.vocabulary
    for name, shape, tensor in (
        ("embed_tokens", (vocabulary, hidden), MODEL_TENSOR.NEXTN_EMBED_TOKENS),
        ("enorm", (hidden,), MODEL_TENSOR.NEXTN_ENORM),
        ("hnorm", (hidden,), MODEL_TENSOR.NEXTN_HNORM),
        ("eh_proj", (hidden, 2 * hidden), MODEL_TENSOR.NEXTN_EH_PROJ),
        ("shared_head.norm", (hidden,), MODEL_TENSOR.NEXTN_SHARED_HEAD_NORM),
        ("shared_head.head", (vocabulary, hidden), MODEL_TENSOR.NEXTN_SHARED_HEAD_HEAD),
    ):
        stored = TENSOR_NAMES[tensor].format(bid=layer) + ".weight"
        made.plain(f"model.layers.{layer}.{name}.weight", *shape, name=stored)


def describe(metadata: Metadata) -> None:
    """The engine sees one key-value head, as long as the compressed state and the rotary part together."""
    config = metadata.config
    rank, rotary = config.integer("kv_lora_rank"), config.integer("qk_rope_head_dim")
    value, plain = config.integer("v_head_dim"), config.integer("qk_nope_head_dim")
    metadata.u32(Keys.Attention.KEY_LENGTH, rank + rotary)
    metadata.u32(Keys.Attention.VALUE_LENGTH, rank)
    default = 0 if config.has("n_routed_experts") else config.layers
    metadata.u32(Keys.LLM.LEADING_DENSE_BLOCK_COUNT, config.integer("first_k_dense_replace", default, least=0))
    metadata.u32(Keys.LLM.VOCAB_SIZE, config.vocabulary)
    if config.has("q_lora_rank"):
        metadata.u32(Keys.Attention.Q_LORA_RANK, config.integer("q_lora_rank"))
    metadata.u32(Keys.Attention.KV_LORA_RANK, rank)
    metadata.u32(Keys.Attention.KEY_LENGTH_MLA, plain + rotary)
    metadata.u32(Keys.Attention.VALUE_LENGTH_MLA, value)
    metadata.u32(Keys.LLM.EXPERT_FEED_FORWARD_LENGTH, config.integer("moe_intermediate_size"))
    metadata.u32(Keys.LLM.EXPERT_SHARED_COUNT, config.integer("n_shared_experts", 0, least=0))
    if config.has("routed_scaling_factor"):
        metadata.f32(Keys.LLM.EXPERT_WEIGHTS_SCALE, config.number("routed_scaling_factor"))
    if config.flag("norm_topk_prob"):
        metadata.boolean(Keys.LLM.EXPERT_WEIGHTS_NORM, True)
    metadata.u32(Keys.Rope.DIMENSION_COUNT, rotary)
    if config.rope.has("mscale_all_dim"):
        # A tenth, unlike elsewhere in GGUF: the engine reads it so for this architecture (llama.cpp, #17945).
        metadata.f32(Keys.Rope.SCALING_YARN_LOG_MUL, 0.1 * config.rope.number("mscale_all_dim"))
    if config.mtp_layers:
        metadata.u32(Keys.LLM.NEXTN_PREDICT_LAYERS, config.mtp_layers)
