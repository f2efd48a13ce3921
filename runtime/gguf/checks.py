"""Do metadata and tensors agree? Most of what is refused here would end the whole process in native code.

Sources: the GGML_ASSERTs of `load_hparams` in src/llama-model.cpp and of `load` in src/llama-vocab.cpp, and the tensor
shapes of `load_arch_tensors` in src/models/, all of llama.cpp as vendored in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from runtime.base.errors import BadModelFile, Incompatible
from runtime.base.quoted import quoted_name
from runtime.gguf.card import ModelCard
from runtime.gguf.engine_lists import WITHOUT_VOCABULARY, unknown
from runtime.gguf.header import ANOTHER_FILE, TensorInfo
from runtime.gguf.metadata import Metadata
from runtime.gguf.tensor_name import parse_name
from runtime.gguf.types import NOT_FOR_WEIGHTS

# Architectures whose every tensor shape follows from the metadata in the same plain way. Of others only what holds
# for all is checked, and the engine checks the rest by itself.
_PLAIN = frozenset({"llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "phi3", "gpt-oss", "deepseek2"})
# Of these the graph asserts that the rotary dimensions, the key length and the value length are the same.
_WHOLE_HEAD_ROPE = frozenset({"llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe"})
_TOKENIZERS_WITH_MERGES = ("gpt2",)
_TOKENIZERS_WITH_SCORES = ("llama", "t5", "plamo2")
_GATING_FUNCTIONS = 4  # llama_expert_gating_func_type of llama-hparams.h
_MAX_TOKENS = 1 << 20  # four times the largest vocabulary of a known model
_LONGEST_STATE = 1 << 20  # of known models the longest has 16384 (ssm.inner_size of Jamba)
# Keys that the engine reads as numbers and calculates with (load_hparams and load_arch_hparams).
_CALCULATED = re.compile(
    r".*(?:scale|_linear|epsilon|softcapping|factor|multiplier|beta(?:_\w+)?|freq_base\w*|alpha(?:_\w)?|_bias|_kqv|\.eps)"
)


def check(card: ModelCard, metadata: Metadata) -> None:
    """Raise BadModelFile for the first contradiction."""
    _check_tokenizer(card, metadata)
    _check_numbers(metadata)
    if not card.tensors:
        return
    _check_layers(card, metadata)
    _check_states(card, metadata)
    _check_experts(card, metadata)
    for tensor in card.tensors:
        _check_type(card, tensor)
    if card.architecture in _PLAIN:
        _check_heads(card, metadata)
        _check_shapes(card, metadata)


def _bad(card: ModelCard, problem: str) -> BadModelFile:
    return BadModelFile(card.path, problem, hint=ANOTHER_FILE)


def _check_tokenizer(card: ModelCard, metadata: Metadata) -> None:
    model = metadata.text("tokenizer.ggml.model")
    if model is None:
        raise _bad(card, "the tokenizer is missing (tokenizer.ggml.model)")
    tokens = metadata.array("tokenizer.ggml.tokens", ("str",))
    merges = metadata.array("tokenizer.ggml.merges", ("str",))
    by_token = {
        "scores": metadata.array("tokenizer.ggml.scores", ("f32", "i32")),
        "token_type": metadata.array("tokenizer.ggml.token_type", ("i32", "u32")),
    }
    if model in WITHOUT_VOCABULARY:
        return
    if tokens is None or tokens.count == 0:
        raise _bad(card, "the vocabulary is missing (tokenizer.ggml.tokens)")
    if tokens.count > _MAX_TOKENS:
        raise Incompatible(
            f"{card.path}: a vocabulary of {tokens.count} tokens, and dsr reads at most {_MAX_TOKENS}",
            hint="no known model has so many: take another conversion of the model",
        )
    for key, listed in by_token.items():
        if listed is not None and listed.count < tokens.count:
            raise _bad(card, f"tokenizer.ggml.{key} has {listed.count} entries for {tokens.count} tokens")
        used = model in _TOKENIZERS_WITH_SCORES
        if listed is not None and used and listed.type == "f32" and not listed.is_finite():
            raise _bad(card, f"tokenizer.ggml.{key} holds numbers that are not finite")
    if merges is None and model in _TOKENIZERS_WITH_MERGES and metadata.text("tokenizer.ggml.pre") != "kimi-k2":
        raise _bad(card, "tokenizer.ggml.merges is missing")
    # Native code reads C strings, names empty ones by their number, and aborts when two tokens are spelled the same.
    raw = tokens.raw_strings()
    if b"\0" in b"".join(raw):
        raw = [token.split(b"\0", 1)[0] for token in raw]
    if len(set(raw)) != len(raw):
        seen: set[bytes] = set()
        for number, token in enumerate(raw):
            spelled = token or b"[EMPTY_%d]" % number
            if spelled in seen:
                raise _bad(card, f"token {number} of tokenizer.ggml.tokens is spelled like an earlier one: {token!r}")
            seen.add(spelled)


def _check_numbers(metadata: Metadata) -> None:
    for name, value in metadata.values.items():
        own = name.startswith((metadata.architecture + ".", "xielu."))
        if own and isinstance(value, float) and _CALCULATED.fullmatch(name):
            metadata.number(name)
    for name in (".attention.layer_norm_rms_epsilon", ".attention.layer_norm_epsilon"):
        epsilon = metadata.number(name)
        if epsilon is not None and not 0 <= epsilon < 1:
            raise metadata.bad(name, f"is {epsilon}, not between 0 and 1")
    base = metadata.number(".rope.freq_base")
    if base is not None and base <= 0:
        raise metadata.bad(".rope.freq_base", f"is {base}, not above 0")
    scaling = metadata.text(".rope.scaling.type")
    if scaling not in (None, "none", "linear", "yarn", "longrope"):
        raise unknown(metadata.path, f"kind of {quoted_name(metadata.key('.rope.scaling.type'))}", scaling)
    metadata.integer(".pooling_type", most=4, default=0)
    gating = metadata.integer(".expert_gating_func", default=0)
    if gating > _GATING_FUNCTIONS:
        raise unknown(metadata.path, f"kind of {quoted_name(metadata.key('.expert_gating_func'))}", str(gating))


def _check_layers(card: ModelCard, metadata: Metadata) -> None:
    present = {tensor.layer for tensor in card.tensors} - {None}
    highest = max((layer for layer in present if layer is not None), default=-1)
    if highest >= card.layers:
        raise metadata.bad(".block_count", f"is {card.layers}, but there are tensors of layer {highest}")
    # The layers that predict further tokens come last and are often left out of the file.
    needed = card.layers - card.nextn_layers
    if card.architecture in _PLAIN and (highest + 1 < needed or len(present) != highest + 1):
        raise metadata.bad(".block_count", f"is {card.layers}, but there are tensors of {len(present)} layers")
    if needed < 1:
        raise metadata.bad(".nextn_predict_layers", f"is {card.nextn_layers} of {card.layers} layers")


def _check_states(card: ModelCard, metadata: Metadata) -> None:
    """The lengths of recurrent layers, from which the memory of the model follows. Other models may have odd ones."""
    if any(".ssm_" in tensor.name for tensor in card.tensors):
        for name in ("conv_kernel", "inner_size", "state_size", "time_step_rank", "group_count"):
            metadata.integer(f".ssm.{name}", most=_LONGEST_STATE, default=0)


def _check_experts(card: ModelCard, metadata: Metadata) -> None:
    groups = metadata.integer(".expert_group_count", default=0)
    groups_used = metadata.integer(".expert_group_used_count", default=0)
    if card.experts == 0:
        if card.experts_used or groups:
            raise metadata.bad(".expert_count", "is 0, but experts are used")
        if any(tensor.is_expert_stack for tensor in card.tensors):
            raise metadata.bad(".expert_count", "is 0 or missing, but there are tensors of experts")
        return
    if not 1 <= card.experts_used <= card.experts:
        raise metadata.bad(".expert_used_count", f"is {card.experts_used} of {card.experts} experts")
    if groups >= card.experts or (groups > 1 and card.experts % groups):
        raise metadata.bad(".expert_group_count", f"is {groups}, which does not divide {card.experts} experts")
    if groups > 1 and not 1 <= groups_used < groups:
        raise metadata.bad(".expert_group_used_count", f"is {groups_used} of {groups} groups")
    for tensor in card.tensors:
        if tensor.is_expert_stack and tensor.shape[-1] != card.experts:
            raise _bad(card, f"tensor {tensor.name} holds {tensor.shape[-1]} experts instead of {card.experts}")


def _check_type(card: ModelCard, tensor: TensorInfo) -> None:
    if card.architecture in _PLAIN and tensor.type in NOT_FOR_WEIGHTS:
        raise _bad(card, f"tensor {tensor.name} has the type {tensor.type}, which no weight can have")
    if card.architecture in _PLAIN and len(tensor.shape) == 1 and tensor.type != "F32":
        raise _bad(card, f"tensor {tensor.name} is a vector of the type {tensor.type} instead of F32")


def _check_heads(card: ModelCard, metadata: Metadata) -> None:
    heads, kv_heads = card.heads, card.kv_heads
    if heads < 1 or min(card.kv_heads_per_layer) < 1 or heads % kv_heads:
        raise metadata.bad(".attention.head_count", f"is {heads} with {kv_heads} heads of keys and values")
    if card.key_length < 1 or card.value_length < 1:
        raise metadata.bad(".attention.key_length", f"is {card.key_length} with values of {card.value_length}")
    rope = card.rope_dimensions
    if card.is_mla:
        if not 0 < rope < card.key_length_mla:
            raise metadata.bad(".rope.dimension_count", f"is {rope} of keys of {card.key_length_mla}")
        if card.key_length != card.kv_lora_rank + rope or card.value_length != card.kv_lora_rank or kv_heads != 1:
            raise metadata.bad(
                ".attention.key_length",
                f"is {card.key_length} with values of {card.value_length} for a latent of {card.kv_lora_rank} + {rope}",
            )
    elif rope % 2 or not 0 < rope <= card.key_length:
        raise metadata.bad(".rope.dimension_count", f"is {rope} of heads of {card.key_length}")
    elif card.architecture in _WHOLE_HEAD_ROPE and not rope == card.key_length == card.value_length:
        raise metadata.bad(
            ".rope.dimension_count", f"is {rope}, keys are {card.key_length} and values {card.value_length} long"
        )


def _check_shapes(card: ModelCard, metadata: Metadata) -> None:
    expected = dict(_shapes(card, metadata))
    for tensor in card.tensors:
        wanted = expected.get(parse_name(tensor.name).part, tensor.shape)
        if tensor.shape != wanted:
            raise _bad(card, f"tensor {tensor.name} has the shape {list(tensor.shape)} instead of {list(wanted)}")
    if not any(tensor.name == "token_embd.weight" for tensor in card.tensors):
        raise _bad(card, "the tensor token_embd.weight is missing")


def _shapes(card: ModelCard, metadata: Metadata) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The shapes that follow from the metadata, by tensor name without its layer. Differing layers are left out."""
    width = card.embedding_length
    for name in ("token_embd.weight", "output.weight"):
        yield name, (width, card.vocab_size)
    for name in ("output_norm.weight", "attn_norm.weight", "ffn_norm.weight"):
        yield name, (width,)
    if card.is_mla:
        yield from _latent_shapes(card)
    elif card.architecture != "deepseek2" and len(set(card.kv_heads_per_layer)) == 1:
        queries, keys, values = (
            card.heads * card.key_length,
            card.kv_heads * card.key_length,
            card.kv_heads * card.value_length,
        )
        yield "attn_q.weight", (width, queries)
        yield "attn_k.weight", (width, keys)
        yield "attn_v.weight", (width, values)
        yield "attn_qkv.weight", (width, queries + keys + values)
        yield "attn_q.bias", (queries,)
        yield "attn_k.bias", (keys,)
        yield "attn_v.bias", (values,)
        yield "attn_output.weight", (card.heads * card.value_length, width)
        if card.architecture in ("qwen3", "qwen3moe"):
            yield "attn_q_norm.weight", (card.key_length,)
            yield "attn_k_norm.weight", (card.key_length,)
    yield from _feed_forward_shapes(card, metadata)


def _latent_shapes(card: ModelCard) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, heads, latent, rope = card.embedding_length, card.heads, card.kv_lora_rank, card.rope_dimensions
    yield "attn_kv_a_mqa.weight", (width, latent + rope)
    yield "attn_kv_a_norm.weight", (latent,)
    yield "attn_k_b.weight", (card.key_length_mla - rope, latent, heads)
    yield "attn_v_b.weight", (latent, card.value_length_mla, heads)
    yield "attn_output.weight", (heads * card.value_length_mla, width)
    if card.q_lora_rank:
        yield "attn_q_a.weight", (width, card.q_lora_rank)
        yield "attn_q_a_norm.weight", (card.q_lora_rank,)
        yield "attn_q_b.weight", (card.q_lora_rank, heads * card.key_length_mla)
    else:
        yield "attn_q.weight", (width, heads * card.key_length_mla)


def _feed_forward_shapes(card: ModelCard, metadata: Metadata) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, experts = card.embedding_length, card.experts
    inner = set(metadata.per_layer(".feed_forward_length", card.layers, default=0))
    if len(inner) == 1 and card.architecture != "gpt-oss":
        (dense,) = inner
        fused = 2 if card.architecture == "phi3" else 1
        yield "ffn_gate.weight", (width, dense)
        yield "ffn_up.weight", (width, fused * dense)
        yield "ffn_down.weight", (dense, width)
    if not experts:
        return
    yield "ffn_gate_inp.weight", (width, experts)
    yield "exp_probs_b.bias", (experts,)
    if card.architecture == "llama":
        routed = inner
    else:
        routed = set(metadata.per_layer(".expert_feed_forward_length", card.layers, default=0)) - {0}
        if not routed and card.architecture == "qwen3moe":
            routed = {length // card.experts_used for length in inner}
    if len(routed) == 1:
        (each,) = routed
        yield "ffn_gate_exps.weight", (width, each, experts)
        yield "ffn_up_exps.weight", (width, each, experts)
        yield "ffn_down_exps.weight", (each, width, experts)
        shared = metadata.integer(".expert_shared_count", most=1024, default=0)
        if card.architecture == "deepseek2" and shared:
            yield "ffn_gate_shexp.weight", (width, each * shared)
            yield "ffn_up_shexp.weight", (width, each * shared)
            yield "ffn_down_shexp.weight", (each * shared, width)
