"""Layer, part and role from a tensor's name."""

from __future__ import annotations

import pytest

from runtime.gguf.tensor_name import parse_name


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("token_embd.weight", "embedding"),
        ("output.weight", "output"),
        ("output_norm.weight", "norm"),
        ("blk.0.attn_q.weight", "attention"),
        ("blk.0.attn_kv_a_mqa.weight", "attention"),
        ("blk.0.attn_output.weight", "attention"),
        ("blk.0.attn_kv_a_norm.weight", "norm"),
        ("blk.0.ffn_down.weight", "dense ffn"),
        ("blk.0.ffn_down_shexp.weight", "shared experts"),
        ("blk.0.ffn_down_exps.weight", "routed experts"),
        ("blk.0.ffn_down.3.weight", "routed experts"),
        ("blk.0.ffn_gate_inp.weight", "router"),
        ("blk.0.exp_probs_b.bias", "router"),
        ("blk.61.nextn.embed_tokens.weight", "embedding"),
        ("blk.61.nextn.eh_proj.weight", "mtp"),
        ("blk.61.nextn.enorm.weight", "norm"),
        ("per_layer_token_embd.weight", "embedding"),
        ("position_embd.weight", "embedding"),
        ("token_embd_norm.weight", "norm"),
        ("per_layer_model_proj.weight", "per-layer inputs"),
        ("blk.0.inp_gate.weight", "per-layer inputs"),
        ("blk.0.proj.weight", "per-layer inputs"),
        ("blk.0.altup_router_norm.weight", "norm"),
        ("blk.0.laurel_l.weight", "per-layer inputs"),
        ("blk.0.ple_key.weight", "per-layer inputs"),
        ("blk.0.ssm_alpha.weight", "recurrent"),
        ("blk.0.ssm_norm.weight", "norm"),
        ("blk.0.shortconv.in_proj.weight", "recurrent"),
        ("blk.0.time_mix_key.weight", "recurrent"),
        ("blk.0.channel_mix_key.weight", "dense ffn"),
        ("blk.0.indexer.attn_k.weight", "indexer"),
        ("blk.0.indexer.proj.weight", "indexer"),
        ("blk.0.indexer_compressor_kv.weight", "indexer"),
        ("blk.0.attn_compressor_kv.weight", "attention"),
        ("blk.0.attn_sinks.weight", "attention"),
        ("blk.0.hc_ffn_fn.weight", "hyper-connections"),
        ("output_hc_fn.weight", "hyper-connections"),
        ("blk.0.ffn_gate_tid2eid.weight", "router"),
        ("blk.0.ffn_up_chexps.weight", "routed experts"),
        ("blk.0.ffn_gate_inp_shexp.weight", "router"),
        ("rope_freqs.weight", "other"),
    ],
)
def test_role(name: str, role: str) -> None:
    assert parse_name(name).role == role


@pytest.mark.parametrize(
    ("name", "layer", "part", "stem"),
    [
        ("blk.12.attn_q.weight", 12, "attn_q.weight", "attn_q"),
        ("blk.0.attn_q.bias", 0, "attn_q.bias", "attn_q.bias"),
        ("blk.3.router.selected", 3, "router.selected", "router.selected"),
        ("output.weight", None, "output.weight", "output"),
        ("v.blk.3.attn_q.weight", None, "v.blk.3.attn_q.weight", "v.blk.3.attn_q"),
        ("blk.x.attn_q.weight", None, "blk.x.attn_q.weight", "blk.x.attn_q"),
    ],
)
def test_layer_and_part(name: str, layer: int | None, part: str, stem: str) -> None:
    parsed = parse_name(name)
    assert (parsed.layer, parsed.part, parsed.stem) == (layer, part, stem)


def test_expert_stacks_have_a_slice_for_each_expert() -> None:
    assert parse_name("blk.0.ffn_down_exps.weight").is_expert_stack
    assert not parse_name("blk.0.ffn_down.3.weight").is_expert_stack
    assert not parse_name("blk.0.ffn_norm_exps.weight").is_expert_stack
    assert not parse_name("blk.0.ffn_up_chexps.weight").is_expert_stack  # one slice for a group of experts
