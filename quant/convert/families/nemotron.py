"""NVIDIA's Nemotron-H and Nemotron 3: each layer is Mamba-2, attention, a feed-forward network or experts."""

from __future__ import annotations

from quant.convert.blocks import attention, linear
from quant.convert.facts import Facts, Size
from quant.convert.families import mamba
from quant.convert.family import Family, When, blk, both, f32, flag, row, u32, under
from quant.convert.metadata import by_layer

_KINDS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_KINDS |= {"linear_attention": "mamba", "full_attention": "attention", **{kind: kind for kind in _KINDS.values()}}


def _kind(kind: str) -> When:
    """Whether a layer is of this kind, by hybrid_override_pattern (a letter each) or layers_block_type (a list)."""

    def is_it(facts: Facts, layer: int) -> bool:
        config = facts.config
        key = "hybrid_override_pattern" if config.has("hybrid_override_pattern") else "layers_block_type"
        pattern = config.values.get(key)
        if not isinstance(pattern, (str, list)) or len(pattern) < facts.layers:
            raise config.bad(f"{key} does not name the kind of each of the {facts.layers} layers")
        return _KINDS.get(str(pattern[layer])) == kind

    return is_it


_MAMBA, _ATTENTION, _NETWORK, _EXPERTS = (_kind(kind) for kind in ("mamba", "attention", "mlp", "moe"))


def _has_experts(facts: Facts, layer: int) -> bool:
    assert callable(_EXPERTS)
    return any(_EXPERTS(facts, each) for each in range(facts.number("layers")))


def _layers(facts: Facts, layer: int) -> int:
    kinds = facts.config.values.get("layers_block_type")
    return len(kinds) if isinstance(kinds, list) and kinds else facts.number("num_hidden_layers")


def _where(kind: When, size: str) -> Size:
    """The size in layers of this kind, and 0 in others."""

    def found(facts: Facts, layer: int) -> int:
        assert callable(kind)
        return facts.number(size) if kind(facts, layer) else 0

    return found


_SIZES: dict[str, Size] = {
    **mamba.SIZES,
    "layers": _layers,
    "inner": lambda facts, layer: facts.number("mamba_num_heads*mamba_head_dim"),
    "groups": "n_groups|mamba_n_groups",
    "state": "ssm_state_size",
    "kernel": "conv_kernel|mamba_d_conv",
    "ssm_heads": "mamba_num_heads",
    "head": "head_dim|attention_head_dim",
    "kv_heads": _where(_ATTENTION, "num_key_value_heads"),
    "latent": "moe_latent_size=hidden",
}
# configuration_nemotron_h.py of transformers 5
_DEFAULTS = {"layer_norm_epsilon": 1e-5, "rope_theta": 10000.0, "n_groups": 8, "conv_kernel": 4, "mamba_head_dim": 64}
_DEFAULTS |= {"ssm_state_size": 128, "use_bias": False, "mlp_bias": False}
_FRAME = (
    row("token_embd.weight", "backbone.embeddings.weight", "vocab hidden"),
    blk("attn_norm.weight", "norm.weight", "hidden"),
    *mamba.mamba2("mixer", bias="use_bias", when=_MAMBA),
    *attention("mixer", in_pairs=True, when=_ATTENTION),
    row("output_norm.weight", "backbone.norm_f.weight", "hidden"),
    row("output.weight", "lm_head.weight", "vocab hidden", when="!tie_word_embeddings"),
)
_KEYS = (
    u32("context_length", lambda facts: 2**20),  # without rotation any length is possible
    f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
    u32("attention.key_length", "head"),
    u32("attention.value_length", "head"),
    u32("attention.head_count_kv", by_layer("kv_heads")),
    u32("vocab_size", "vocab"),
    u32("rope.dimension_count", "even_head"),
    flag("rope.scaling.finetuned", lambda facts: False),
    u32("ssm.conv_kernel", "kernel"),
    u32("ssm.state_size", "state"),
    u32("ssm.group_count", "groups"),
    u32("ssm.inner_size", "inner"),
    u32("ssm.time_step_rank", "ssm_heads"),
)

NEMOTRON_H_MOE = Family(
    "nemotron_h_moe",
    classes=("NemotronHForCausalLM",),
    when=_has_experts,
    defaults=_DEFAULTS | {"norm_topk_prob": True, "num_experts_per_tok": 2},
    sizes={**_SIZES, "ffn": _where(_EXPERTS, "moe_intermediate_size")},
    tensors=under(
        "backbone.layers.",
        (
            *_FRAME,
            blk("ffn_gate_inp.weight", "mixer.gate.weight", "experts hidden", when=_EXPERTS),
            blk("exp_probs_b.bias", "mixer.gate.e_score_correction_bias", "experts", when=_EXPERTS),
            *linear(
                "ffn_latent_down", "mixer.fc1_latent_proj", "latent", "hidden", when=both(_EXPERTS, "moe_latent_size")
            ),
            *linear(
                "ffn_latent_up", "mixer.fc2_latent_proj", "hidden", "latent", when=both(_EXPERTS, "moe_latent_size")
            ),
            blk("ffn_down_exps.weight", "mixer.experts.{e}.down_proj.weight", "latent expert_ffn", when=_EXPERTS),
            blk("ffn_up_exps.weight", "mixer.experts.{e}.up_proj.weight", "expert_ffn latent", when=_EXPERTS),
            *linear(
                "ffn_down_shexp",
                "mixer.shared_experts.down_proj",
                "hidden",
                "moe_shared_expert_intermediate_size",
                when=_EXPERTS,
            ),
            *linear(
                "ffn_up_shexp",
                "mixer.shared_experts.up_proj",
                "moe_shared_expert_intermediate_size",
                "hidden",
                when=_EXPERTS,
            ),
        ),
    ),
    keys=(
        *_KEYS,
        u32("feed_forward_length", by_layer("ffn")),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size"),
        u32("expert_shared_count", "n_shared_experts"),
        flag("expert_weights_norm", "norm_topk_prob"),
        f32("expert_weights_scale", "routed_scaling_factor"),
        u32("moe_latent_size", "moe_latent_size", optional=True),
    ),
)
NEMOTRON_H = Family(
    "nemotron_h",
    classes=("NemotronHForCausalLM",),
    defaults=_DEFAULTS,
    sizes={**_SIZES, "ffn": _where(_NETWORK, "intermediate_size")},
    without=("experts",),
    tensors=under(
        "backbone.layers.",
        (
            *_FRAME,
            *linear("ffn_up", "mixer.up_proj", "ffn", "hidden", bias="mlp_bias", when=_NETWORK),
            *linear("ffn_down", "mixer.down_proj", "hidden", "ffn", bias="mlp_bias", when=_NETWORK),
        ),
    ),
    keys=(*_KEYS, u32("feed_forward_length", by_layer("ffn"))),
)

FAMILIES = (NEMOTRON_H_MOE, NEMOTRON_H)
