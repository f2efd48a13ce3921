"""A model of each architecture of the engine, without weights: metadata by hand, and the tensors that the engine wants.

    write_model("gemma4", path)      a file with a true header and holes in place of the weights

The engine itself says which tensors a model with this metadata has (`llama_model_init_from_user`), so a new
architecture takes only its metadata here. The keys are those that load_arch_hparams in src/models/ of llama.cpp reads.
Sizes are such that buffers depend on the shapes: a width of 1024, a vocabulary of 32,000 tokens.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from runtime.gguf.card import ModelCard, layer_count
from runtime.llama.native import library, log, native
from tests.gguf_writer import T, header
from tests.published_widths import PUBLISHED

WIDTH, HEADS, KV_HEADS, HEAD = 1024, 16, 4, 64
INNER = 3072
EXPERT_INNER = 512
LAYERS = 8
VOCABULARY = 32_000
CONTEXT = 32_768
WINDOW = 256

_EVERY_OTHER = [n % 2 for n in range(LAYERS)]  # of two layers the second
_LAST_OF_FOUR = [1, 1, 1, 0] * (LAYERS // 4)
_SOME_ATTEND = [KV_HEADS if n % 4 == 3 else 0 for n in range(LAYERS)]

_COMMON: dict[str, Any] = {
    "context_length": CONTEXT,
    "embedding_length": WIDTH,
    "block_count": LAYERS,
    "feed_forward_length": INNER,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
    "rope.dimension_count": HEAD,
    "logit_scale": 1.0,
    "use_parallel_residual": True,
    "attention.clamp_kqv": 8.0,
}
_EXPERTS: dict[str, Any] = {
    "expert_count": 32,
    "expert_used_count": 4,
    "expert_shared_count": 1,
    "expert_feed_forward_length": EXPERT_INNER,
    "expert_shared_feed_forward_length": 768,
    "expert_gating_func": 2,
    "expert_weights_scale": 1.0,
    "expert_chunk_feed_forward_length": 128,
    "expert_group_scale": 0.05,
    "experts_per_group": 2,
    "leading_dense_block_count": 1,
    "interleave_moe_layer_step": 2,
}
# Latent attention: the cache holds 512 + 64 numbers for each token.
_LATENT: dict[str, Any] = {
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": 768,
    "attention.kv_lora_rank": 512,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "rope.dimension_count": 64,
}
_INDEXER: dict[str, Any] = {
    "attention.indexer.head_count": 8,
    "attention.indexer.key_length": 128,
    "attention.indexer.top_k": 64,
}
_DELTA_NET: dict[str, Any] = {
    "attention.key_length": HEAD,
    "attention.value_length": HEAD,
    "rope.dimension_sections": [8, 12, 12, 0],
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 2048,
    "ssm.state_size": 128,
    "ssm.time_step_rank": 16,
    "ssm.group_count": 8,
}
_MAMBA2: dict[str, Any] = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 2 * WIDTH,
    "ssm.state_size": 128,
    "ssm.time_step_rank": 32,
    "ssm.group_count": 1,
}
_KIMI_DELTA: dict[str, Any] = {
    **_LATENT,
    "attention.head_count_kv": [1 if n % 4 == 3 else 0 for n in range(LAYERS)],
    "ssm.conv_kernel": 4,
    "kda.head_dim": 128,
    "kda.gate_lower_bound": -5.0,
    "kda.safe_gate": True,
}
_WINDOW: dict[str, Any] = {"attention.sliding_window": WINDOW}
_HYPER: dict[str, Any] = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
    "hyper_connection.low_rank": 8,
    "hyper_connection.magnitude": 2.0,
}
_NGRAMS: dict[str, Any] = {
    "ple.layers": [0],
    "ple.ngram_size": 3,
    "ple.heads_per_ngram": 2,
    "ple.conv_kernel": 4,
    "ple.eos_token_id": 0,
    "ple.image_token_id": 0,
    "embedding_length_per_layer_input": WIDTH // 4,
}
_RWKV: dict[str, Any] = {
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "wkv.head_size": HEAD,
    "time_mix_extra_dim": 64,
    "time_decay_extra_dim": 128,
    "attention.decay_lora_rank": 64,
    "attention.iclr_lora_rank": 64,
    "attention.value_residual_mix_lora_rank": 32,
    "attention.gate_lora_rank": 128,
}

_DENSE = (
    "llama", "deci", "falcon", "baichuan", "starcoder", "stablelm", "qwen2", "qwen3", "phi2", "phi3", "plamo", "orion",
    "internlm2", "minicpm", "gemma", "starcoder2", "xverse", "command-r", "olmo", "chatglm", "glm4", "bitnet", "jais2",
    "nemotron", "exaone", "granite", "arcee", "ernie4_5", "hunyuan-dense", "smollm3", "seed_oss", "pangu-embedded",
    "mistral3", "maincoder", "nanbeige", "gptneox", "codeshell", "refact",
)  # fmt: skip
_MIXTURES = (
    "qwen2moe", "qwen3moe", "phimoe", "dbrx", "deepseek", "glm4moe", "granitemoe", "bailingmoe", "bailingmoe2",
    "ernie4_5-moe", "hunyuan-moe", "hy_v3", "minimax-m2", "grok", "arctic", "grovemoe",
)  # fmt: skip
# What an architecture has besides the common keys. None takes a key away.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{name: {} for name in _DENSE},
    **dict.fromkeys(_MIXTURES, _EXPERTS),
    "olmoe": {**_EXPERTS, "attention.head_count_kv": HEADS},
    "dots1": {**_EXPERTS, "attention.head_count_kv": HEADS},
    "apertus": {f"xielu.{name}": [1.0] * LAYERS for name in ("alpha_n", "alpha_p", "beta", "eps")},
    "gpt2": {"attention.head_count_kv": HEADS},
    "bloom": {"attention.head_count_kv": HEADS},
    "mpt": {"attention.head_count_kv": HEADS, "attention.max_alibi_bias": 8.0},
    "qwen": {"attention.head_count_kv": HEADS, "feed_forward_length": 2 * INNER},
    "jais": {"attention.head_count_kv": HEADS, "attention.max_alibi_bias": 8.0},
    "talkie": {},
    "cogvlm": {},
    "chameleon": {},
    "hunyuan_vl": {"rope.dimension_sections": [8, 12, 12, 0]},
    "paddleocr": {"rope.dimension_sections": [8, 12, 12, 0]},
    "deepseek2-ocr": {**_EXPERTS, "attention.head_count_kv": HEADS},
    "hrm_text": {"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 3, "attention.head_count_kv": HEADS},
    "graniteswitch": {"adapters.count": 2, "adapters.lora_rank": 8, "adapters.token_ids_activate": [5, 6],
                      "adapters.token_ids_substitute": [7, 8]},
    "qwen2vl": {"rope.dimension_sections": [8, 12, 12, 0]},
    "qwen3vl": {"rope.dimension_sections": [8, 12, 12, 0]},
    "qwen3vlmoe": {**_EXPERTS, "rope.dimension_sections": [8, 12, 12, 0]},
    "gemma2": {**_WINDOW, "attention.key_length": HEAD, "attention.value_length": HEAD},
    "gemma3": {**_WINDOW, "attention.key_length": HEAD, "attention.value_length": HEAD},
    "gemma3n": {
        **_WINDOW, "block_count": 24, "attention.key_length": HEAD, "attention.value_length": HEAD,
        "embedding_length_per_layer_input": 256,
    },
    "gemma4": {
        **_WINDOW, "attention.key_length": 2 * HEAD, "attention.value_length": 2 * HEAD,
        "attention.key_length_swa": HEAD, "attention.value_length_swa": HEAD, "attention.shared_kv_layers": 4,
        "attention.sliding_window_pattern": _LAST_OF_FOUR, "embedding_length_per_layer_input": 256,
        "rope.dimension_count": 2 * HEAD, "rope.dimension_count_swa": HEAD,
    },
    "gpt-oss": {**_EXPERTS, **_WINDOW},
    "cohere2": {**_WINDOW},
    "cohere2moe": {**_EXPERTS, **_WINDOW},
    "olmo2": _WINDOW,
    "exaone4": _WINDOW,
    "exaone-moe": {**_EXPERTS, **_WINDOW},
    "llama4": {**_EXPERTS, **_WINDOW},
    "afmoe": {**_EXPERTS, **_WINDOW},
    "laguna": {**_EXPERTS, **_WINDOW},
    "smallthinker": {**_EXPERTS, **_WINDOW},
    "mellum": {**_EXPERTS, **_WINDOW},
    "plamo3": {**_WINDOW, "attention.key_length": HEAD, "attention.value_length": HEAD},
    "mimo2": {**_EXPERTS, **_WINDOW, "attention.sliding_window_pattern": _LAST_OF_FOUR},
    "step35": {**_EXPERTS, **_WINDOW, "attention.sliding_window_pattern": _LAST_OF_FOUR},
    "maple": {
        **_EXPERTS, **_WINDOW, "attention.sliding_window_pattern": _LAST_OF_FOUR, "swiglu_clamp_exp": 7.0,
    },
    "spark2_5": {**_WINDOW, "attention.sliding_window_pattern": _LAST_OF_FOUR},
    "granite_swa": {**_EXPERTS, **_WINDOW, "attention.sliding_window_pattern": _LAST_OF_FOUR},
    "muse-glimmer": {**_WINDOW, "final_logit_softcapping": 30.0},
    "deepseek2": {**_EXPERTS, **_LATENT},
    "mistral4": {**_EXPERTS, **_LATENT},
    "minicpm3": {"attention.q_lora_rank": 768, "attention.kv_lora_rank": 256, "attention.key_length": 96,
                 "attention.value_length": HEAD, "rope.dimension_count": 32,
                 "attention.head_count_kv": HEADS},
    "deepseek32": {**_EXPERTS, **_LATENT, **_INDEXER},
    "glm-dsa": {**_EXPERTS, **_LATENT, **_INDEXER, "attention.indexer.types": [1, 0] * (LAYERS // 2)},
    "hy_v4": {**_EXPERTS, **_LATENT, **_INDEXER, **_HYPER, "attention.indexer.types": [1, 0] * (LAYERS // 2),
              "swiglu_clamp_exp": 10.0},
    "dots3note": {
        **_EXPERTS, **_LATENT, **_INDEXER, **_WINDOW, "attention.sliding_window_pattern": _EVERY_OTHER,
        "attention.indexer.types": [1, 0] * (LAYERS // 2), "attention.kv_lora_rank_swa": 256,
        "attention.key_length_swa": 320, "attention.value_length_swa": 256, "attention.key_length_mla_swa": 192,
        "attention.value_length_mla_swa": 128, "rope.freq_base_swa": 10000.0,
    },
    "deepseek4": {
        **_EXPERTS, **_INDEXER, **_HYPER, **_WINDOW, "attention.head_count_kv": 1, "attention.key_length": 128,
        "attention.value_length": 128, "rope.dimension_count": 64, "attention.q_lora_rank": 512,
        "attention.output_group_count": 8, "attention.output_lora_rank": 128, "expert_gating_func": 4,
        "attention.compress_ratios": [0, 0, 4, 128, 4, 128, 4, 128], "hash_layer_count": 0,
        "attention.compress_rope_freq_base": 160000.0, "swiglu_clamp_exp": 10.0, "expert_weights_norm": True,
    },
    "minimax-m3": {**_EXPERTS, **_INDEXER, "attention.indexer.head_count": KV_HEADS,
                   "attention.indexer.block_size": 64, "attention.indexer.local_blocks": 1,
                   "leading_dense_block_count": 3},
    "minimax-01": {**_EXPERTS, "full_attention_interval": 4, "residual_scale": 3.5},
    "mamba": {"ssm.conv_kernel": 4, "ssm.inner_size": 2 * WIDTH, "ssm.state_size": 16, "ssm.time_step_rank": 64,
              "feed_forward_length": 0, "attention.head_count": 0, "attention.head_count_kv": 0},
    "mamba2": {**_MAMBA2, "feed_forward_length": 0, "attention.head_count": 0, "attention.head_count_kv": 0},
    "jamba": {**_EXPERTS, "ssm.conv_kernel": 4, "ssm.inner_size": 2 * WIDTH, "ssm.state_size": 16,
              "ssm.time_step_rank": 64, "attention.head_count_kv": _SOME_ATTEND},
    "falcon-h1": _MAMBA2,
    "plamo2": {**_MAMBA2, "ssm.group_count": 0, "ssm.time_step_rank": 32, "ssm.inner_size": 2 * WIDTH,
               "attention.head_count_kv": _SOME_ATTEND,
               "attention.head_count": [HEADS if k else 0 for k in _SOME_ATTEND],
               "attention.key_length": HEAD, "attention.value_length": HEAD},
    "granitehybrid": {**_MAMBA2, "attention.head_count_kv": _SOME_ATTEND},
    "nemotron_h": {**_MAMBA2, "attention.head_count_kv": [0, 0, KV_HEADS, 0] * 2,
                   "feed_forward_length": [0, INNER, 0, INNER] * 2},
    "nemotron_h_moe": {**_MAMBA2, **_EXPERTS, "attention.head_count_kv": [0, 0, KV_HEADS, 0] * 2,
                       "feed_forward_length": [0, INNER, 0, INNER] * 2},
    "qwen3next": {**_EXPERTS, **_DELTA_NET},
    "qwen35": _DELTA_NET,
    "qwen35moe": {**_EXPERTS, **_DELTA_NET},
    "qwen4exp": {
        **_EXPERTS, **_DELTA_NET, **_INDEXER, **_HYPER, **_NGRAMS, "attention.indexer.key_length": HEAD,
        "attention.compress_ratios": [4] * LAYERS,
    },
    "lfm2": {"attention.head_count_kv": _SOME_ATTEND, "shortconv.l_cache": 3},
    "lfm2moe": {**_EXPERTS, "attention.head_count_kv": _SOME_ATTEND, "shortconv.l_cache": 3},
    "kimi-linear": {**_EXPERTS, **_KIMI_DELTA},
    "kimi-k3": {**_EXPERTS, **_KIMI_DELTA, "attn_res.block_size": 12, "activation.situ_beta": 4.0,
                "activation.situ_linear_beta": 25.0, "expert_latent_length": 512},
    "bailingmoe3": {**_EXPERTS, **_KIMI_DELTA, "rope.dimension_sections": [8, 12, 12, 0]},
    "glm5-next": {**_EXPERTS, **_KIMI_DELTA, **_INDEXER, **_HYPER, "attention.key_length": 512,
                  "rope.dimension_count": 0, "attention.indexer.kpool": 4, "swiglu_clamp_exp": 10.0},
    "rwkv6": _RWKV,
    "rwkv7": _RWKV,
    "arwkv7": {**_RWKV, "token_shift_count": 1},
    "openelm": {"attention.head_count": [12, 12, 12, 12, 16, 16, 16, 20], "attention.head_count_kv":
                [3, 3, 3, 3, 4, 4, 4, 5], "feed_forward_length": [1024, 1280, 1536, 1792, 2048, 2304, 2560, 2816],
                "attention.key_length": HEAD, "attention.value_length": HEAD},
}  # fmt: skip


# The same architectures with other metadata.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3n that says what it shares": ("gemma3n", {"attention.shared_kv_layers": 4}),
    "exaone4 of 64 layers": ("exaone4", {"block_count": 64}),
    "lfm2 with windows": ("lfm2", _WINDOW),
    "lfm2moe with windows": ("lfm2moe", _WINDOW),
    "nanbeige in two passes": ("nanbeige", {"num_loops": 2}),
    "glm-dsa of GLM 5.2": ("glm-dsa", {"context_length": 1 << 20, "attention.indexer.types": None}),
    "hy_v4 without an indexer": ("hy_v4", {"attention.indexer.top_k": 0, "attention.indexer.types": None}),
    "granitehybrid with experts": ("granitehybrid", _EXPERTS),
    **{
        f"{name} with MTP": (name, {"nextn_predict_layers": 1})
        for name in ("qwen35", "qwen35moe", "qwen3next", "deepseek2", "deepseek32", "glm4moe", "mimo2", "step35",
                     "cohere2moe", "hy_v3", "glm5-next")
    },
    "glm-dsa with MTP": ("glm-dsa", {"nextn_predict_layers": 1, "attention.indexer.types": [1, 0, 1, 0, 1, 0, 1]}),
    "bailingmoe3 with MTP": (
        "bailingmoe3",
        {"nextn_predict_layers": 1, "attention.head_count_kv": [*_KIMI_DELTA["attention.head_count_kv"][:-1], 1]},
    ),
    "nemotron_h_moe with MTP": (
        "nemotron_h_moe",
        {"nextn_predict_layers": 1, "attention.head_count_kv": [0, 0, KV_HEADS, 0, 0, 0, KV_HEADS, KV_HEADS]},
    ),
    "nemotron_h_moe with experts that differ": (
        "nemotron_h_moe",
        {"expert_used_count": [0, 2, 0, 4] * 2, "expert_feed_forward_length": [0, 256, 0, 512] * 2},
    ),
    **{f"{name} with tied embeddings": (name, {"tied": True}) for name in ("gemma3", "gemma3n", "gemma4")},
    # Four layers as wide as those of published models, with fewer experts: buffers depend on these widths. Cohere 2 has
    # eight, because with four the engine frees a value of width before its only layer that sees everything.
    **{f"{architecture} of {size}": (architecture, {"block_count": 4, **shape})
       for architecture, size, shape in PUBLISHED},
}  # fmt: skip

# Tensors that the engine would take, but that files do not have: other forms of the same weights, scales of types.
_LEFT_OUT = re.compile(r"\.(?:input_)?scale$|rope_factors|nextn\.(?:embed_tokens|shared_head_head)|^cls\.|^dense_")
# The engine takes a dense feed-forward network and experts in each layer of these; a file has one of them.
_EITHER = ("hy_v3", "mimo2", "step35")
# Without an output matrix the table of tokens has two tensors here, since the output is created first
# (create_tensor in llama-model-loader.cpp): two copies without a mapped file, the same bytes of a mapped one.
_TWICE = ("gemma3n", "gemma4")
# The engine maps these of MTP layers although nobody asked for them (src/models/hy-v3.cpp). It reads none.
_MAPPED = r"_exps|_shexp|gate_inp|exp_probs|attn_gate|\.ffn_(?:gate|up|down)\.|shared_head|embed_tokens"
_MAPS_MTP = {"cohere2moe": "shared_head|embed_tokens", "hy_v3": _MAPPED, "step35": _MAPPED}


def metadata(architecture: str, **changes: Any) -> dict[str, Any]:
    """The metadata of a model without a tokenizer; a value of None takes a key away."""
    found = _COMMON | ARCHITECTURES[architecture] | changes
    if "ple.layers" in found:
        from tests.gguf_writer import V

        heads = (found["ple.ngram_size"] - 1) * found["ple.heads_per_ngram"]
        found |= {
            "ple.layer_multipliers": V("u64", [1, 3, 5], array=True),
            "ple.head_offsets": V("u64", [n * 1000 for n in range(heads)], array=True),
            "ple.head_vocab_sizes": V("u64", [1000] * heads, array=True),
        }
    return {
        "general.architecture": architecture,
        **{_key(architecture, key): value for key, value in found.items() if value is not None},
        f"{architecture}.vocab_size": VOCABULARY,
    }


def _key(architecture: str, key: str) -> str:
    return key if key.startswith("xielu.") else f"{architecture}.{key}"


class _InitParams(ctypes.Structure):
    """struct gguf_init_params (gguf.h)."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def tensors(facts: Mapping[str, Any], path: Path) -> list[T]:
    """The tensors that the engine wants for this metadata, in its order. `path` is written and removed.

    Raises ValueError where the engine refuses the metadata; some metadata ends the process.
    """
    path.write_bytes(header({**facts, "tokenizer.ggml.model": "no_vocab"}))
    base = library("ggml-base")
    base.gguf_init_from_file.restype, base.gguf_init_from_file.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_char_p, _InitParams],
    )
    base.ggml_get_name.restype, base.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    opened = base.gguf_init_from_file(str(path).encode(), _InitParams(True, None))
    path.unlink()
    found: dict[str, T] = {}

    def note(tensor: int, _: object) -> None:
        # struct ggml_tensor begins with its type, a buffer and the four lengths of its shape
        shape = list((ctypes.c_int64 * 4).from_address(tensor + 16))
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        name = base.ggml_get_name(tensor).decode()
        found[name] = T(name, tuple(shape))

    callback = native.llama_model_set_tensor_data_t(note)
    params = native.llama_model_default_params()
    params.load_mtp = True
    model = native.llama_model_init_from_user(ctypes.c_void_p(opened), callback, None, params)
    if not model:
        raise ValueError(f"the engine refuses this metadata: {log.take()}")
    native.llama_model_free(model)
    listed = [tensor for name, tensor in found.items() if not _LEFT_OUT.search(name)]
    if facts["general.architecture"] in _EITHER:
        listed = [tensor for tensor in listed if not _surplus(tensor.name)]
    return [part for tensor in listed for part in _apart(tensor)]


def _surplus(name: str) -> bool:
    """Whether a tensor is of experts in the first layer, or of a dense network in the others."""
    experts = re.search(r"_exps|_shexp|gate_inp|exp_probs", name)
    return bool(experts if name.startswith("blk.0.") else re.search(r"\.ffn_(?:gate|up|down)\.", name))


def _apart(tensor: T) -> tuple[T, ...]:
    """Gate and up of the experts as two tensors, as converters write them."""
    if ".ffn_gate_up_exps." not in tensor.name:
        return (tensor,)
    width, both, *experts = tensor.shape
    return tuple(T(tensor.name.replace("gate_up", which), (width, both // 2, *experts)) for which in ("gate", "up"))


def counted_besides(card: ModelCard) -> int:
    """Bytes of weights that the engine's own figures contain, and that no opened model takes."""
    found = 0
    tied = all(tensor.name != "output.weight" for tensor in card.tensors)
    if tied and card.architecture in _TWICE:
        found += sum(tensor.size for tensor in card.tensors if tensor.name == "token_embd.weight")
    if card.architecture in _MAPS_MTP:
        ahead = (tensor for tensor in card.tensors if (tensor.layer or 0) >= layer_count(card))
        found += sum(tensor.size for tensor in ahead if re.search(_MAPS_MTP[card.architecture], tensor.name))
    return found


@cache
def _tokens() -> list[str]:
    return [f"tok_{n}" for n in range(VOCABULARY)]


def write_model(architecture: str, path: Path, *, tied: bool = False, **changes: Any) -> Path:
    """Write a file whose weights are holes: only opening it without memory makes sense.

    With `tied` embeddings there is no output matrix."""
    facts = metadata(architecture, **changes)
    wanted = [tensor for tensor in tensors(facts, path) if not (tied and tensor.name == "output.weight")]
    tokenizer = {
        "tokenizer.ggml.model": "test", "tokenizer.ggml.tokens": _tokens(),
        "tokenizer.ggml.scores": [0.0] * VOCABULARY,
    }  # fmt: skip
    head = header({**facts, "general.name": "Hollow", **tokenizer}, wanted)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(-(-tensor.size // 32) * 32 for tensor in wanted))
    return path
