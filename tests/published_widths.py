"""The widths of published models, for `tests.every_architecture`: buffers depend on them."""

from __future__ import annotations

from typing import Any


def _heads(count: int, key_value: int, length: int, **further: Any) -> dict[str, Any]:
    return {
        "attention.head_count": count, "attention.head_count_kv": key_value, "attention.key_length": length,
        "attention.value_length": length, "rope.dimension_count": length, **further,
    }  # fmt: skip


def _narrow_heads(count: int, key_value: int, window: int, **further: Any) -> dict[str, Any]:
    """Gemma 4: wide heads in the last layer, narrow ones in the others, which have a window."""
    return _heads(count, key_value, 512) | {
        "attention.sliding_window": window, "attention.sliding_window_pattern": [1, 1, 1, 0],
        "attention.key_length_swa": 256, "attention.value_length_swa": 256, "rope.dimension_count_swa": 256,
        "attention.shared_kv_layers": 0, "embedding_length_per_layer_input": 0, **further,
    }  # fmt: skip


def _widths(width: int, inner: int, **further: Any) -> dict[str, Any]:
    return {"embedding_length": width, "feed_forward_length": inner, "expert_feed_forward_length": inner, **further}


_DELTA_32 = {"ssm.inner_size": 4096, "ssm.time_step_rank": 32, "ssm.group_count": 16, "rope.dimension_count": 64}
# (architecture, size, metadata): widths of published models. Qwen3-30B-A3B's are those of its config.json; Qwen3.5-9B,
# gemma-3n-E2B (but for its layers), GLM-4.7-Flash, GLM-4.5-Air and MiniMax-M2 have those of transformers' defaults,
# gpt-oss-20b, Gemma 4 and gemma-3-4b those of MaxText (src/maxtext/configs/models). Qwen3.5-0.8B, Hunyuan-A13B,
# Command R7B and Mamba-2 2.7B are written from memory.
PUBLISHED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("qwen35", "9B", _widths(4096, 12288) | _heads(16, 4, 256) | _DELTA_32),
    ("qwen35", "0.8B", _widths(1024, 3584) | _heads(8, 2, 256) | {
        **_DELTA_32, "ssm.inner_size": 2048, "ssm.time_step_rank": 16}),
    ("gpt-oss", "20B", _widths(2880, 2880) | _heads(64, 8, 64)),
    ("gemma4", "E4B", _widths(2560, 10240) | _narrow_heads(8, 2, 512, embedding_length_per_layer_input=2688)),
    ("gemma4", "E2B", _widths(1536, 6144) | _narrow_heads(8, 1, 512, embedding_length_per_layer_input=2240)),
    ("gemma4", "31B", _widths(5376, 21504) | _narrow_heads(32, 16, 1024)),
    ("gemma3n", "E2B", _widths(2048, 8192, embedding_length_per_layer_input=256) | _heads(8, 2, 256) | {
        "block_count": 30}),
    ("gemma3", "4B", _widths(2560, 10240) | _heads(8, 4, 256)),
    ("qwen3moe", "30B", _widths(2048, 768, expert_used_count=8) | _heads(32, 4, 128)),
    ("glm4moe", "GLM 4.5 Air", _widths(4096, 10944, expert_feed_forward_length=1408, expert_used_count=8,
        expert_shared_feed_forward_length=1408) | _heads(96, 8, 128)),
    ("minimax-m2", "M2", _widths(3072, 1536, expert_used_count=8) | _heads(48, 8, 128)),
    ("hunyuan-moe", "A13B", _widths(4096, 3072, expert_used_count=8, expert_shared_feed_forward_length=3072) |
        _heads(32, 8, 128)),
    ("cohere2", "R7B", _widths(4096, 14336, block_count=8) | _heads(32, 8, 128)),
    ("mamba2", "2.7B", {"embedding_length": 2560, "feed_forward_length": 0, "ssm.inner_size": 5120,
        "ssm.time_step_rank": 80}),
    ("deepseek2", "GLM 4.7 Flash", _widths(2048, 10240, expert_feed_forward_length=1536) | {
        "attention.head_count": 20, "attention.key_length_mla": 256, "attention.value_length_mla": 256}),
)  # fmt: skip
