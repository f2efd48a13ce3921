"""Tiny checkpoints with random weights, one per architecture and way to store it, made with numpy alone.

tests/peers/convert.py feeds the same folders to llama.cpp's converter, so what they hold must never depend on anything
but the code here.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Stored = tuple[str, tuple[int, ...], bytes]  # type, shape, bytes


def write_safetensors(path: Path, tensors: Mapping[str, Stored]) -> None:
    header, parts, at = {}, list[bytes](), 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    write_raw(path, header, b"".join(parts))


def write_raw(path: Path, header: Any, data: bytes = b"") -> None:
    """A file with any header, sound or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def stored(values: Array, dtype: str) -> Stored:
    """`values` as the bytes of a type; BF16 is cut off, which keeps them deterministic."""
    values = values.astype(np.float32)
    if dtype == "BF16":
        raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        raw = values.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()
    return dtype, values.shape, raw


def random_values(name: str, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)


def random_fp8(name: str, shape: tuple[int, int], block: tuple[int, int]) -> tuple[Stored, Stored]:
    """Codes of every value but NaN, and a factor per block, as (weights, factors)."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    codes = generator.integers(0, 256, shape, np.uint8)
    codes[(codes & 127) == 127] = 0
    blocks = (-(-shape[0] // block[0]), -(-shape[1] // block[1]))
    return ("F8_E4M3", shape, codes.tobytes()), stored(generator.random(blocks, np.float32) / 64, "F32")


def byte_characters() -> list[str]:
    """GPT-2's 256 characters for bytes, in the order of their code points."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex: bool = False) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
DEEPSEEK_CODER = ("[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+")
DIGITS = {"type": "Digits", "individual_digits": True}


def byte_level_tokenizer(
    pre_tokenizer: list[dict[str, Any]], bos: str = "", added: tuple[tuple[str, bool], ...] = ()
) -> dict[str, Any]:
    """A tokenizer.json: 256 bytes, five merges, `added` (text, special) behind them, `bos` put before every text."""
    characters = byte_characters()
    merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["i", "n"], ["Ġ", "a"]]
    vocabulary = {character: number for number, character in enumerate(characters)}
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    listed = [
        {"id": len(vocabulary) + number, "content": text, "special": special, **_PLAIN}
        for number, (text, special) in enumerate(added)
    ]
    template: dict[str, Any] | None = None
    if bos:
        first, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
        number = next(each["id"] for each in listed if each["content"] == bos)
        template = {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, first, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {bos: {"id": bos, "ids": [number], "tokens": [bos]}},
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": listed,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizer},
        "post_processor": template or byte_level(),
        "decoder": byte_level(True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre_tokenizer[:1] == [split(LLAMA_3)],
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def sentencepiece_model(words: tuple[str, ...]) -> bytes:
    """A tokenizer.model: <unk>, <s>, </s>, 256 bytes, then `words`, of which the last is user defined."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [(word, -float(number), 1) for number, word in enumerate(words[:-1])]
    pieces.append((words[-1], 0.0, 4))

    def field(number: int, raw: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(raw)) + raw

    def varint(value: int) -> bytes:
        groups = []
        while value > 127:
            groups.append(value & 127 | 128)
            value >>= 7
        return bytes([*groups, value])

    model = b""
    for text, score, kind in pieces:
        piece = field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
        model += field(1, piece + varint(3 << 3) + varint(kind))
    trainer = varint(3 << 3) + varint(2) + varint(4 << 3) + varint(len(pieces)) + varint(35 << 3) + varint(1)
    return model + field(2, trainer) + field(3, field(1, b"identity"))


TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def added_token(text: str) -> dict[str, Any]:
    """A token as tokenizer_config.json may write it."""
    return {"__type": "AddedToken", "content": text, **_PLAIN}


SPECIAL = ("<|begin|>", True), ("<|end|>", True), ("<think>", False), ("é", False)
_BASE: dict[str, Any] = {
    "vocab_size": 272,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 261,
    "eos_token_id": 262,
}


def _save(
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    shards: int = 1,
    fp8: Callable[[str], bool] = lambda name: False,
) -> None:
    """config.json and weights; factors of FP8 weights go to the other file of two."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    settings = config.get("quantization_config")
    files: list[dict[str, Stored]] = [{} for _ in range(shards)]
    for number, (name, shape) in enumerate(shapes.items()):
        if settings and fp8(name):
            weight, factors = random_fp8(name, shape, tuple(settings["weight_block_size"]))  # type: ignore[arg-type]
            files[number % shards][name] = weight
            files[(number + 1) % shards][name + "_scale_inv"] = factors
        else:
            kind = "F32" if name.endswith("e_score_correction_bias") else dtype
            files[number % shards][name] = stored(random_values(name, shape), kind)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", files[0])
        return
    weight_map = {}
    for number, tensors in enumerate(files, 1):
        name = f"model-{number:05d}-of-{shards:05d}.safetensors"
        write_safetensors(folder / name, tensors)
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _save_tokenizer(folder: Path, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **config})
    )


def attention_shapes(prefix: str, hidden: int, heads: int, kv_heads: int, length: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.q_proj.weight": (heads * length, hidden),
        f"{prefix}.k_proj.weight": (kv_heads * length, hidden),
        f"{prefix}.v_proj.weight": (kv_heads * length, hidden),
        f"{prefix}.o_proj.weight": (hidden, heads * length),
    }


def network_shapes(prefix: str, hidden: int, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.gate_proj.weight": (width, hidden),
        f"{prefix}.up_proj.weight": (width, hidden),
        f"{prefix}.down_proj.weight": (hidden, width),
    }


def _frame(config: Mapping[str, Any], layer: Callable[[int, str], dict[str, tuple[int, ...]]]) -> dict[str, Any]:
    """Embeddings, norms and output around what `layer` (number, prefix) says of a layer."""
    hidden, shapes = config["hidden_size"], {}
    shapes["model.embed_tokens.weight"] = (config["vocab_size"], hidden)
    for number in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{number}"
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
        shapes |= layer(number, prefix)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def llama(folder: Path) -> None:
    """BF16 in two files, grouped heads, biases, Llama 3's rotary scaling, byte-level BPE."""
    config = _BASE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_key_value_heads": 2}
    config |= {"attention_bias": True, "mlp_bias": True, "hidden_size": 64, "torch_dtype": "bfloat16"}
    config["rope_scaling"] = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }

    def layer(number: int, prefix: str) -> dict[str, tuple[int, ...]]:
        shapes = attention_shapes(f"{prefix}.self_attn", 64, 4, 2, 16) | network_shapes(f"{prefix}.mlp", 64, 48)
        return shapes | {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}

    _save(folder, config, _frame(config, layer), "BF16", shards=2)
    tokenizer = byte_level_tokenizer([split(LLAMA_3), byte_level()], bos="<|begin|>", added=SPECIAL)
    _save_tokenizer(folder, tokenizer, {"bos_token": "<|begin|>", "eos_token": added_token("<|end|>")})
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1}')


def llama_sentencepiece(folder: Path) -> None:
    """F16 in one file, one head per key, tied embeddings, SentencePiece, a buffer that is left out."""
    config = _BASE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True}
    config |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float16"}

    def layer(number: int, prefix: str) -> dict[str, tuple[int, ...]]:
        buffer = {f"{prefix}.self_attn.rotary_emb.inv_freq": (4,)}
        return attention_shapes(f"{prefix}.self_attn", 32, 4, 4, 8) | network_shapes(f"{prefix}.mlp", 32, 48) | buffer

    _save(folder, config, _frame(config, layer), "F16")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(("▁the", "▁a", "in", "▁user")))
    (folder / "added_tokens.json").write_text('{"<extra>": 264}')
    decoder = {"265": {"content": "<|im_end|>", "special": False}, "266": {"content": "▁▁", "special": False}}
    extra = {"add_prefix_space": True, "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **extra}))


def qwen2(folder: Path) -> None:
    """F32, tied embeddings, biases of queries, keys and values, yarn, a template in a file of its own."""
    config = _BASE | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_key_value_heads": 2}
    config |= {"tie_word_embeddings": True, "torch_dtype": "float32"}
    config["rope_scaling"] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}

    def layer(number: int, prefix: str) -> dict[str, tuple[int, ...]]:
        shapes = attention_shapes(f"{prefix}.self_attn", 32, 4, 2, 8)
        biases = {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items() if "o_proj" not in name}
        return shapes | biases | network_shapes(f"{prefix}.mlp", 32, 48)

    _save(folder, config, _frame(config, layer), "F32")
    _save_tokenizer(
        folder, byte_level_tokenizer([split(QWEN_2), byte_level()], added=SPECIAL), {"eos_token": "<|end|>"}
    )
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{# file #}")


def qwen3(folder: Path) -> None:
    """BF16, heads longer than an even share, normalised queries and keys, digits cut one by one."""
    config = _BASE | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_key_value_heads": 2}
    config |= {"head_dim": 16, "torch_dtype": "bfloat16"}

    def layer(number: int, prefix: str) -> dict[str, tuple[int, ...]]:
        norms = {f"{prefix}.self_attn.{name}_norm.weight": (16,) for name in "qk"}
        return attention_shapes(f"{prefix}.self_attn", 32, 4, 2, 16) | norms | network_shapes(f"{prefix}.mlp", 32, 48)

    _save(folder, config, _frame(config, layer), "BF16")
    _save_tokenizer(folder, byte_level_tokenizer([DIGITS, byte_level(True)], added=SPECIAL), {"pad_token": "<|end|>"})


def qwen3_moe(folder: Path) -> None:
    """BF16 in two files, eleven experts in every layer."""
    config = _BASE | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_key_value_heads": 2}
    config |= {"head_dim": 8, "num_experts": 11, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True, "torch_dtype": "bfloat16"}

    def layer(number: int, prefix: str) -> dict[str, tuple[int, ...]]:
        shapes = attention_shapes(f"{prefix}.self_attn", 32, 4, 2, 8)
        shapes |= {f"{prefix}.self_attn.{name}_norm.weight": (8,) for name in "qk"}
        shapes[f"{prefix}.mlp.gate.weight"] = (11, 32)
        for expert in range(11):
            shapes |= network_shapes(f"{prefix}.mlp.experts.{expert}", 32, 16)
        return shapes

    _save(folder, config, _frame(config, layer), "BF16", shards=2)
    _save_tokenizer(folder, byte_level_tokenizer([byte_level(True)], added=SPECIAL), {"add_bos_token": False})


def mixtral(folder: Path) -> None:
    """BF16, four experts under Mixtral's own names, SentencePiece."""
    config = _BASE | {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_key_value_heads": 2}
    config |= {"num_local_experts": 4, "num_experts_per_tok": 2, "torch_dtype": "bfloat16"}
    config |= {"bos_token_id": 1, "eos_token_id": 2}

    def layer(number: int, prefix: str) -> dict[str, tuple[int, ...]]:
        shapes = attention_shapes(f"{prefix}.self_attn", 32, 4, 2, 8)
        shapes[f"{prefix}.block_sparse_moe.gate.weight"] = (4, 32)
        for expert in range(4):
            for name, shape in (("w1", (48, 32)), ("w2", (32, 48)), ("w3", (48, 32))):
                shapes[f"{prefix}.block_sparse_moe.experts.{expert}.{name}.weight"] = shape
        return shapes

    _save(folder, config, _frame(config, layer), "BF16")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(("▁the", "▁a", "in", "▁user")))


def _deepseek(config: Mapping[str, Any]) -> Callable[[int, str], dict[str, tuple[int, ...]]]:
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    plain, rotary, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]

    def layer(number: int, prefix: str) -> dict[str, tuple[int, ...]]:
        attention = f"{prefix}.self_attn"
        if config["q_lora_rank"] is None:
            shapes = {f"{attention}.q_proj.weight": (heads * (plain + rotary), hidden)}
        else:
            shapes = {
                f"{attention}.q_a_proj.weight": (config["q_lora_rank"], hidden),
                f"{attention}.q_a_layernorm.weight": (config["q_lora_rank"],),
                f"{attention}.q_b_proj.weight": (heads * (plain + rotary), config["q_lora_rank"]),
            }
        shapes |= {
            f"{attention}.kv_a_proj_with_mqa.weight": (rank + rotary, hidden),
            f"{attention}.kv_a_layernorm.weight": (rank,),
            f"{attention}.kv_b_proj.weight": (heads * (plain + value), rank),
            f"{attention}.o_proj.weight": (hidden, heads * value),
        }
        if number < config["first_k_dense_replace"]:
            return shapes | network_shapes(f"{prefix}.mlp", hidden, config["intermediate_size"])
        shapes[f"{prefix}.mlp.gate.weight"] = (config["n_routed_experts"], hidden)
        if config["topk_method"] == "noaux_tc":
            shapes[f"{prefix}.mlp.gate.e_score_correction_bias"] = (config["n_routed_experts"],)
        width = config["moe_intermediate_size"]
        for expert in range(config["n_routed_experts"]):
            shapes |= network_shapes(f"{prefix}.mlp.experts.{expert}", hidden, width)
        return shapes | network_shapes(f"{prefix}.mlp.shared_experts", hidden, width * config["n_shared_experts"])

    return layer


_MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "moe_intermediate_size": 20,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
}


def deepseek_v2(folder: Path) -> None:
    """BF16, queries that are not compressed, softmax routing, yarn, DeepSeek Coder's way to cut words."""
    config = _BASE | _MLA | {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2"}
    config |= {"q_lora_rank": None, "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False}
    config |= {"routed_scaling_factor": 1.0, "torch_dtype": "bfloat16", "auto_map": {"AutoConfig": "evil.Config"}}
    config["rope_scaling"] = {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 128,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
    }
    _save(folder, config, _frame(config, _deepseek(config)), "BF16")
    chain = [*map(split, DEEPSEEK_CODER), DIGITS, byte_level()]
    _save_tokenizer(folder, byte_level_tokenizer(chain, bos="<|begin|>", added=SPECIAL), {"bos_token": "<|begin|>"})


def deepseek_v3(folder: Path) -> None:
    """FP8 in blocks that do not fit, factors in the other file, sigmoid routing in groups, a layer for predicting
    several tokens."""
    _deepseek_v3(folder, lambda config: {"model.layers.2.eh_proj.weight": (32, 64)})


def deepseek_v3_mtp(folder: Path) -> None:
    """The same with all that such a layer has."""
    _deepseek_v3(folder, lambda config: mtp_shapes(config, "model.layers.2"))


def mtp_shapes(config: Mapping[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    """What a layer for predicting several tokens has besides."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    return {
        f"{prefix}.embed_tokens.weight": (vocabulary, hidden),
        f"{prefix}.enorm.weight": (hidden,),
        f"{prefix}.hnorm.weight": (hidden,),
        f"{prefix}.eh_proj.weight": (hidden, 2 * hidden),
        f"{prefix}.input_layernorm.weight": (hidden,),
        f"{prefix}.post_attention_layernorm.weight": (hidden,),
        f"{prefix}.shared_head.norm.weight": (hidden,),
        f"{prefix}.shared_head.head.weight": (vocabulary, hidden),
    }


def _deepseek_v3(folder: Path, mtp: Callable[[Mapping[str, Any]], dict[str, tuple[int, ...]]]) -> None:
    config = _BASE | _MLA | {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    config |= {"q_lora_rank": 20, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True}
    config |= {"routed_scaling_factor": 2.5, "n_group": 2, "topk_group": 1, "num_nextn_predict_layers": 1}
    config |= {"torch_dtype": "bfloat16"}
    config["quantization_config"] = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [16, 16],
    }
    shapes = _frame(config, _deepseek(config))
    shapes |= _deepseek(config)(2, "model.layers.2") | mtp(config)
    _save(folder, config, shapes, "BF16", shards=2, fp8=lambda name: "_proj" in name and "eh_proj" not in name)
    bos = "<｜begin▁of▁sentence｜>"
    chain = [*map(split, DEEPSEEK_3), byte_level()]
    added = ((bos, True), ("<｜end▁of▁sentence｜>", True), ("<think>", False), ("<｜User｜>", False))
    extra = {"bos_token": added_token(bos), "eos_token": added_token(added[1][0]), "add_bos_token": True}
    _save_tokenizer(folder, byte_level_tokenizer(chain, bos=bos, added=added), extra)


# Every case: what it is made by, and the plain type in which it is compared.
CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "llama": (llama, "bf16"),
    "llama_sentencepiece": (llama_sentencepiece, "f16"),
    "qwen2": (qwen2, "f16"),
    "qwen3": (qwen3, "f32"),
    "qwen3_moe": (qwen3_moe, "bf16"),
    "mixtral": (mixtral, "f16"),
    "deepseek_v2": (deepseek_v2, "f16"),
    "deepseek_v3": (deepseek_v3, "bf16"),
    "deepseek_v3_mtp": (deepseek_v3_mtp, "bf16"),
}
# Those whose layers for predicting several tokens are kept.
KEEPING = {"deepseek_v3_mtp"}
