"""Every parameter of the engine's structures: what dsr chooses, and why. No value is inherited from the library.

Structures are filled from these tables and from nothing else. `GIVEN` must be given for each opening; other values can
be replaced. llama.cpp's own programs take theirs from `common_params` in common/common.h (release 0.3.36). dsr calls
neither llama_model_quantize nor llama_opt_init, so it fills no llama_model_quantize_params and no llama_opt_params.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runtime.llama.native import native

GIVEN = object()
_PROGRAMS = "as llama.cpp's programs do: "


class Choice(NamedTuple):
    value: object
    reason: str


# enum llama_load_mode, llama_lazy_mode, llama_split_mode, llama_context_type, llama_flash_attn_type (llama.h)
LOAD_NONE, LOAD_AUTO, LOAD_DIRECT = 0, -1, 4
_LAZY_AUTO, _SPLIT_BY_LAYER, _DEFAULT_CONTEXT, _FLASH_AUTO = 1, 1, 0, -1
_NOT_POOLED = 0  # enum llama_pooling_type
_F16 = 1  # enum ggml_type
_FROM_MODEL = -1  # of the enums, and of the factors of YaRN

MODEL: Mapping[str, Choice] = {
    "devices": Choice(None, "all GPUs that the engine sees; a placement names them"),
    "tensor_buft_overrides": Choice(None, "tensors lie with their layer; a placement keeps experts on the CPU"),
    "n_gpu_layers": Choice(-1, "all layers on the GPUs, if there are any; a placement gives their number"),
    "split_mode": Choice(_SPLIT_BY_LAYER, "the placement plans whole layers; it also needs the least traffic"),
    "load_mode": Choice(LOAD_AUTO, "maps the file, which several processes then share, where all devices can"),
    "lazy_mode": Choice(_LAZY_AUTO, _PROGRAMS + "rows of lookup tables above 4 GiB stay on the disk until needed"),
    "main_gpu": Choice(0, "has no effect with whole layers"),
    "tensor_split": Choice(None, "by free memory; a placement gives the layers of each device"),
    "progress_callback": Choice(GIVEN, "reports progress, and its result stops the loading on Ctrl-C"),
    "progress_callback_user_data": Choice(None, "the callback is a closure"),
    "kv_overrides": Choice(None, "the file says what it is; masked experts override their number"),
    "vocab_only": Choice(False, "tokens and weights are needed together"),
    "check_tensors": Choice(False, "would read all weights at each opening; downloads have a checksum instead"),
    "use_extra_bufts": Choice(True, _PROGRAMS + "faster kernels of this CPU want weights in another order"),
    "no_host": Choice(False, _PROGRAMS + "pinned memory is faster to copy to a GPU"),
    "no_alloc": Choice(False, "only `memory_breakdown` asks for sizes without memory"),
    "load_mtp": Choice(GIVEN, "the layers that predict ahead take memory, so only `--draft mtp` loads them"),
}

CONTEXT: Mapping[str, Choice] = {
    "n_ctx": Choice(GIVEN, "chosen by memory, or the user's"),
    "n_batch": Choice(GIVEN, "one pass through the graph, so that progress and Ctrl-C come between passes"),
    "n_ubatch": Choice(GIVEN, "as n_batch"),
    "n_seq_max": Choice(GIVEN, "the samples that are drawn together, and sequences that keep earlier texts"),
    "n_rs_seq": Choice(0, "states after each token of a batch only undo drafts"),
    "n_outputs_max": Choice(GIVEN, "the buffer of logits is as large as a batch can ask for, not as large as a batch"),
    "n_outputs_max_per_seq": Choice(1, "only samplers inside of the graph use it, and dsr has none there"),
    "n_threads": Choice(GIVEN, "measured for the model, or the user's"),
    "n_threads_batch": Choice(GIVEN, "as n_threads"),
    "ctx_type": Choice(_DEFAULT_CONTEXT, "the layers of the model itself"),
    "rope_scaling_type": Choice(_FROM_MODEL, "the file says how its positions scale; --rope says it otherwise"),
    "pooling_type": Choice(_NOT_POOLED, "a value head reads the states of tokens; an embedder says how it pools"),
    "attention_type": Choice(_FROM_MODEL, "a model that is not causal is refused after loading"),
    "flash_attn_type": Choice(_FLASH_AUTO, _PROGRAMS + "on where every device of the model has the kernel"),
    "rope_freq_base": Choice(0.0, "0: from the file"),
    "rope_freq_scale": Choice(0.0, "0: from the file"),
    "yarn_ext_factor": Choice(-1.0, "negative: from the file"),
    "yarn_attn_factor": Choice(-1.0, "negative: from the file"),
    "yarn_beta_fast": Choice(-1.0, "negative: from the file"),
    "yarn_beta_slow": Choice(-1.0, "negative: from the file"),
    "yarn_orig_ctx": Choice(0, "0: from the file"),
    "defrag_thold": Choice(-1.0, "the engine no longer uses it; cells of ended samples are used again"),
    "cb_eval": Choice(None, "splits the graph, so only observers set it"),
    "cb_eval_user_data": Choice(None, "the callback is a closure"),
    "type_k": Choice(_F16, "the cache of llama.cpp's programs; --kv-type chooses smaller ones"),
    "type_v": Choice(_F16, "as type_k"),
    "abort_callback": Choice(None, "enters Python 30 times per token, so it is set only for long batches"),
    "abort_callback_data": Choice(None, "the callback is a closure"),
    "embeddings": Choice(False, "logits are read; only an embedder reads embeddings"),
    "offload_kqv": Choice(True, _PROGRAMS + "the cache lies with its layer"),
    "no_perf": Choice(True, "dsr has its own clock"),
    "op_offload": Choice(True, _PROGRAMS + "a GPU computes large batches faster, also with weights that the CPU holds"),
    "swa_full": Choice(False, _PROGRAMS + "the window alone; copies and checkpoints replace the rest, or --kv-full"),
    "kv_unified": Choice(True, "samples share the cells, so that one may be long while others are short"),
    "samplers": Choice(None, "dsr draws from logits, which its statistics need as well"),
    "n_samplers": Choice(0, "as samplers"),
    "ctx_other": Choice(None, "only the layers that predict ahead have a second context"),
}

SAMPLER_CHAIN: Mapping[str, Choice] = {"no_perf": Choice(True, "dsr has its own clock")}


def model_params(**given: Any) -> Any:
    """A llama_model_params. Raises TypeError for an unknown name or a missing `GIVEN` one."""
    return _filled(native.llama_model_params(), MODEL, given)


def context_params(**given: Any) -> Any:
    """A llama_context_params. Raises as `model_params` does."""
    return _filled(native.llama_context_params(), CONTEXT, given)


def sampler_chain_params() -> Any:
    """A llama_sampler_chain_params."""
    return _filled(native.llama_sampler_chain_params(), SAMPLER_CHAIN, {})


def _filled(params: Any, table: Mapping[str, Choice], given: Mapping[str, Any]) -> Any:
    if unknown := given.keys() - table.keys():
        raise TypeError(f"no parameters of the engine: {sorted(unknown)}")
    for name, choice in table.items():
        value = given.get(name, choice.value)
        if value is GIVEN:
            raise TypeError(f"{name} must be given")
        if value is not None:  # a pointer of a new structure is null
            setattr(params, name, value)
    return params
