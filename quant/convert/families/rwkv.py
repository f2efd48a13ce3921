"""RWKV-7, a recurrent model without attention, under the names of the library of flash linear attention."""

from __future__ import annotations

from collections.abc import Callable

from quant.convert.facts import Facts, Size
from quant.convert.family import Family, Row, When, blk, f32, row, u32
from quant.convert.transforms import reshape


def _rank(key: str, other: str, exponent: float, factor: float) -> Size:
    """A rank, by default a multiple of 32 that grows with a power of the hidden size (conversion/rwkv.py)."""

    def rank(facts: Facts, layer: int) -> int:
        found = next((each for each in (key, other) if facts.config.has(each)), None)
        if found:
            return facts.config.integer(found, most=1 << 20)
        size: float = facts.number("hidden") ** exponent * factor
        return max(1, round(size / 32)) * 32

    return rank


def _heads(facts: Facts, layer: int) -> int:
    hidden, head = facts.number("hidden"), facts.number("head")
    if hidden % head:
        raise facts.config.bad(f"hidden_size {hidden} is not a multiple of the head's {head} elements")
    return hidden // head


def _ffn(facts: Facts, layer: int) -> int:
    config = facts.config
    return config.integer("intermediate_size") if config.has("intermediate_size") else 4 * facts.number("hidden")


def _normed(to: str, of: str, make: Callable[..., Row] = blk) -> tuple[Row, ...]:
    return (make(f"{to}.weight", f"{of}.weight", "hidden"), make(f"{to}.bias", f"{of}.bias", "hidden"))


def _adapted(letter: str, of: str, rank: str, *, bias: bool = True, layers: str = "all") -> tuple[Row, ...]:
    """A small network of low rank. Its bias is the constant part of the value that it changes."""
    kinds: dict[str, When] = {
        "all": True,
        "first": lambda facts, layer: layer == 0,
        "others": lambda facts, layer: layer > 0,
    }
    which = kinds[layers]
    rows = (
        blk(f"time_mix_{letter}1.weight", f"attn.{of}_lora.lora.0.weight", f"{rank} hidden", when=which),
        blk(f"time_mix_{letter}2.weight", f"attn.{of}_lora.lora.2.weight", f"hidden {rank}", when=which),
    )
    constant = blk(f"time_mix_{letter}0.weight", f"attn.{of}_lora.lora.2.bias", "hidden", when=which)
    return (*rows, constant) if bias else rows


RWKV7 = Family(
    "rwkv7",
    classes=("RWKV7ForCausalLM", "Rwkv7ForCausalLM"),
    defaults={"norm_eps": 1e-5},
    sizes={
        "ffn": _ffn,
        "head": "head_size|head_dim",
        "wkv_heads": _heads,
        "decay_rank": _rank("lora_rank_decay", "decay_low_rank_dim", 0.5, 1.8),
        "rate_rank": _rank("lora_rank_iclr", "a_low_rank_dim", 0.5, 1.8),
        "value_rank": _rank("lora_rank_value_residual_mix", "v_low_rank_dim", 0.5, 1.3),
        "gate_rank": _rank("lora_rank_gate", "gate_low_rank_dim", 0.8, 0.6),
    },
    without=(
        "context_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "rope",
    ),
    tensors=(
        row("token_embd.weight", "model.embeddings.weight", "vocab hidden"),
        *_normed("token_embd_norm", "model.layers.0.pre_norm", row),
        *_normed("attn_norm", "attn_norm"),
        *_normed("attn_norm_2", "ffn_norm"),
        blk(
            "time_mix_lerp_fused.weight",
            tuple(f"attn.x_{letter}" for letter in "rwkvag"),
            "1 1 hidden",
            reshape("6 1 1 hidden"),
        ),
        *_adapted("w", "w", "decay_rank"),
        # The first layer has no values before it to mix with; the engine wants the tensors all the same.
        *_adapted("v", "a", "rate_rank", layers="first"),
        *_adapted("a", "a", "rate_rank"),
        *_adapted("v", "v", "value_rank", layers="others"),
        *_adapted("g", "g", "gate_rank", bias=False),
        blk("time_mix_k_k.weight", "attn.k_k", "hidden"),
        blk("time_mix_k_a.weight", "attn.k_a", "hidden"),
        blk("time_mix_r_k.weight", "attn.r_k", "wkv_heads head", reshape("hidden")),
        blk("time_mix_receptance.weight", "attn.r_proj.weight", "hidden hidden"),
        blk("time_mix_key.weight", "attn.k_proj.weight", "hidden hidden"),
        blk("time_mix_value.weight", "attn.v_proj.weight", "hidden hidden"),
        blk("time_mix_output.weight", "attn.o_proj.weight", "hidden hidden"),
        *_normed("time_mix_ln", "attn.g_norm"),
        blk("channel_mix_lerp_k.weight", "ffn.x_k", "hidden"),
        blk("channel_mix_key.weight", "ffn.key.weight", "ffn hidden"),
        blk("channel_mix_value.weight", "ffn.value.weight", "hidden ffn"),
        *_normed("output_norm", "model.norm", row),
        row("output.weight", "lm_head.weight", "vocab hidden"),
    ),
    keys=(
        u32("context_length", lambda facts: 2**20),  # as long as one likes
        u32("attention.head_count", lambda facts: 0),  # the engine wants it, and does not use it
        f32("attention.layer_norm_epsilon", "norm_eps"),
        u32("wkv.head_size", "head"),
        u32("attention.decay_lora_rank", "decay_rank"),
        u32("attention.iclr_lora_rank", "rate_rank"),
        u32("attention.value_residual_mix_lora_rank", "value_rank"),
        u32("attention.gate_lora_rank", "gate_rank"),
    ),
)

FAMILIES = (RWKV7,)
