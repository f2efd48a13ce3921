"""Corrupted copies of a GGUF file, the same for the same seed: cut short, header bytes flipped, absurd numbers; and
sound files that say absurd things."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

from runtime.gguf.engine_lists import ARCHITECTURES, PRE_TOKENIZERS, TOKENIZERS
from tests.gguf_writer import V, gguf, llama_metadata, llama_tensors, moe_metadata, moe_tensors

ABSURD = (0, 1, 7, 99, 0xFFFF, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def corrupted_copies(source: bytes, seed: int, count: int, header: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield `count` pairs of (what was done, the copy). `header` is how many first bytes are worth damaging."""
    rng = random.Random(seed)
    end = min(header or len(source), len(source))
    for number in range(count):
        kind = ("cut", "flip", "flip", "number", "count", "shuffle")[number % 6]
        copy = bytearray(source)
        if kind == "cut":
            at = rng.choice([rng.randrange(end), rng.randrange(len(source)), rng.randrange(min(64, end))])
            yield f"{number}: cut to {at} bytes", bytes(copy[:at])
            continue
        if kind == "flip":
            places = sorted(rng.randrange(end) for _ in range(rng.choice([1, 1, 1, 2, 8])))
            for place in places:
                copy[place] ^= 1 << rng.randrange(8)
            what = f"bit flipped in bytes {', '.join(map(str, places))}"
        elif kind == "number":
            width, code = rng.choice([(4, "<I"), (8, "<Q")])
            at = rng.randrange(max(1, end - width))
            wrong = rng.choice(ABSURD) % 2 ** (8 * width)
            copy[at : at + width] = struct.pack(code, wrong)
            what = f"{width} bytes at {at} set to {wrong}"
        elif kind == "count":
            at, wrong = rng.choice([4, 8, 16]), rng.choice(ABSURD)
            code, width = ("<I", 4) if at == 4 else ("<Q", 8)
            copy[at : at + width] = struct.pack(code, wrong % 2 ** (8 * width))
            what = f"count at {at} set to {wrong}"
        else:
            at, length = rng.randrange(end), rng.randrange(1, 64)
            copy[at : at + length] = rng.randbytes(len(copy[at : at + length]))
            what = f"{length} random bytes at {at}"
        yield f"{number}: {what}", bytes(copy)


# What the engine reads of an architecture, besides what the small models have (LLM_KV_NAMES of src/llama-arch.cpp).
_MORE_KEYS = """
    vocab_size leading_dense_block_count expert_count expert_used_count expert_shared_count expert_group_count
    expert_group_used_count expert_weights_scale expert_weights_norm expert_gating_func moe_every_n_layers
    nextn_predict_layers pooling_type logit_scale decoder_start_token_id attn_logit_softcapping final_logit_softcapping
    residual_scale embedding_scale token_shift_count interleave_moe_layer_step swin_norm use_parallel_residual
    attention.max_alibi_bias attention.clamp_kqv attention.key_length attention.value_length
    attention.layer_norm_epsilon
    attention.group_norm_epsilon attention.group_norm_groups attention.causal attention.q_lora_rank
    attention.kv_lora_rank attention.sliding_window attention.sliding_window_pattern attention.scale
    attention.temperature_length attention.temperature_scale attention.key_length_mla attention.value_length_mla
    attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k attention.shared_kv_layers
    rope.dimension_sections rope.scaling.type rope.scaling.factor rope.scaling.attn_factor
    rope.scaling.original_context_length rope.scaling.yarn_log_multiplier rope.scaling.alpha rope.freq_base_swa
    ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count ssm.dt_b_c_rms wkv.head_size
    convnext.embedding_length convnext.block_count posnet.embedding_length shortconv.l_cache dense_2_feat_in
    """.split()  # noqa: SIM905


def absurd_models(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` pairs of (what was changed, the file): one to three keys of a small sound model have another value,
    and often the architecture is one that does not go with its tensors."""
    rng = random.Random(seed)
    for number in range(count):
        metadata, tensors = rng.choice([(llama_metadata(), llama_tensors()), (moe_metadata(), moe_tensors())])
        own = architecture = metadata["general.architecture"]
        if rng.random() < 0.5:
            architecture = rng.choice(sorted(ARCHITECTURES))
            metadata = {key.replace(f"{own}.", f"{architecture}.", 1): item for key, item in metadata.items()}
            metadata["general.architecture"] = architecture
        keys = [key for key in metadata if not key.startswith("general.")]
        keys += [f"{architecture}.{key}" for key in _MORE_KEYS]
        wrong = rng.sample(keys, rng.choice([1, 1, 2, 3]))
        changed = {key: _absurd_value(rng, key, metadata.get(key)) for key in wrong}
        what = ", ".join(f"{key}={_short(item)}" for key, item in changed.items())
        yield f"{number}: {architecture} {what}", gguf(metadata | changed, tensors)


def _absurd_value(rng: random.Random, key: str, now: Any) -> Any:
    if key == "tokenizer.ggml.pre":
        return rng.choice([*sorted(PRE_TOKENIZERS), "x\nerror: y\u2028z"])
    if key == "tokenizer.ggml.model":
        return rng.choice([*TOKENIZERS, ""])
    if isinstance(now, list) and rng.random() < 0.7:
        changed = list(now)
        other = ["", "a" * 5000, "a"] if isinstance(now[0], str) else [0, 7, -1]
        changed[rng.randrange(len(changed))] = rng.choice(other)
        return changed
    small = rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 32, 33, 64, 65, 96, 128, 255, 1024])
    return rng.choice(
        [
            small,
            small,
            rng.choice(ABSURD) % 2**32,
            V("i32", rng.choice([-1, -(2**31), 2**31 - 1])),
            rng.choice([0.0, -1.0, 0.1, 1e-30, 1e30, float("inf"), float("nan")]),
            rng.choice([True, False]),
            rng.choice(["", "none", "linear", "yarn", "longrope", "a"]),
            [rng.choice([0, 1, 2, 8, 16, -1, 2**31 - 1]) for _ in range(rng.choice([1, 2, 4, 8]))],
        ]
    )


def _short(item: Any) -> str:
    return repr(item.value if isinstance(item, V) else item)[:40]
