"""What the engine knows: architectures, tokenizers, pre-tokenizers.

So a header tells before a download or a load whether a model can run. Sources, all of llama.cpp as vendored in
llama-cpp-python 0.3.36: LLM_ARCH_NAMES and llm_arch_is_diffusion in src/llama-arch.cpp, and llama_vocab::impl::load in
src/llama-vocab.cpp. A test compares the lists with the installed library.
"""

from __future__ import annotations

from pathlib import Path

from runtime.base.errors import Incompatible
from runtime.base.quoted import quoted_name
from runtime.gguf.card import ModelCard

ENGINE_VERSION = "0.3.36"
MOST_LAYERS = 512  # LLAMA_MAX_LAYERS and LLAMA_MAX_EXPERTS of src/llama-hparams.h: more abort the process
MOST_EXPERTS = 1024
_ENGINE = f"llama-cpp-python {ENGINE_VERSION}"

ARCHITECTURES = frozenset(
    """
    llama llama4 deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bert modern-bert nomic-bert
    nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert bloom stablelm qwen qwen2 qwen2moe qwen2vl qwen3
    qwen3moe qwen3next qwen3vl qwen3vlmoe qwen35 qwen35moe qwen4exp phi2 phi3 phimoe plamo plamo2 plamo3 codeshell
    orion internlm2 minicpm minicpm3 gemma gemma2 gemma3 gemma3n gemma4 gemma4-assistant gemma-embedding starcoder2
    mamba mamba2 maple jamba falcon-h1 xverse command-r cohere2 cohere2moe dbrx olmo olmo2 olmoe muse-glimmer
    openelm arctic deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 chatglm glm4 glm4moe glm-dsa bitnet t5
    t5encoder jais jais2 nemotron nemotron_h nemotron_h_moe exaone exaone4 exaone-moe rwkv6 rwkv6qwen2 rwkv7 arwkv7
    granite granitemoe granitehybrid graniteswitch granite_swa chameleon wavtokenizer-dec plm bailingmoe bailingmoe2
    bailingmoe3 dots1 dots3note arcee afmoe laguna ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense hunyuan_vl hy_v3
    hy_v4 smollm3 gpt-oss lfm2 lfm2moe dream smallthinker llada llada-moe seed_oss grovemoe apertus minimax-01
    hrm_text minimax-m2 minimax-m3 cogvlm rnd1 pangu-embedded mistral3 eagle3 dflash mistral4 paddleocr mimo2 step35
    spark2_5 llama-embed maincoder kimi-linear kimi-k3 glm5-next talkie mellum nanbeige qwen3tts pockettts
    """.split()  # noqa: SIM905
)

# Values of tokenizer.ggml.model.
WITHOUT_VOCABULARY = ("none", "no_vocab")
TOKENIZERS = frozenset(
    "no_vocab none llama bert gpt2 hybriddna whitespace t5 rwkv test plamo2 gemma4".split()  # noqa: SIM905
)
# Their kernels take a head's elements in steps (GGML_F32_STEP: 64 with AVX-512) and read and write beyond a shorter
# rest (ggml_compute_forward_rwkv_wkv7_f32 in ggml-cpu/ops.cpp; rwkv6 leaves the rest out). Published heads have 64.
TIME_MIX_STEP = 64
TIME_MIX = frozenset(("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"))

# Only these tokenizers read tokenizer.ggml.pre.
_WITH_PRE_TOKENIZER = ("gpt2", "hybriddna", "whitespace")

PRE_TOKENIZERS = frozenset(
    """
    kimi-k2 default minicpm5 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano
    deepseek-llm deepseek-coder deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat
    jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jais-2 gemma4 granite-embed-multi-311m sarvam-moe jina-v1-en
    jina-v2-code roberta-bpe whitespace refact command-r qwen2 deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo
    dbrx smaug-bpe poro-chat chatglm-bpe glm4 glm5 viking jais tekken smollm codeshell bloom gpt3-finnish exaone
    exaone4 exaone-moe chameleon minerva-7b megrez gpt-4o llama4 kanana2 talkie granite-embed-multi-97m tiny_aya
    cohere2moe superbpe trillion granite-docling bailingmoe bailingmoe2 llada-moe seed-coder hunyuan hunyuan-dense
    hy_v4 joyai-llm ufakzeka grok-2 afmoe laguna minimax-m2 solar-open mellum2
    """.split()  # noqa: SIM905
)

# Architectures that the engine opens, but that do not write an answer word by word.
_EMBEDDING, _DIFFUSION = "an embedding model, which writes no text", "a diffusion model, which dsr cannot run"
_DRAFT = "a draft model of a kind that dsr cannot use: it only guesses ahead for another model"
_SPEECH = "a part of a speech model"
_NO_VOCABULARY = "a model without a vocabulary, which reads and writes no text"
_TRANSLATES = ("t5",)
# They only give vectors: `runtime.gguf.embedding`.
ENCODERS = frozenset(
    """
    bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert gemma-embedding llama-embed
    t5encoder
    """.split()  # noqa: SIM905
)
_NO_ANSWERS = {
    **dict.fromkeys(ENCODERS, _EMBEDDING),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), _DIFFUSION),
    **dict.fromkeys(("eagle3", "dflash", "gemma4-assistant"), _DRAFT),
    **dict.fromkeys(("wavtokenizer-dec", "qwen3tts", "pockettts"), _SPEECH),
}


def check_known(card: ModelCard) -> None:
    """Raise Incompatible for a model that the engine does not know, and for a file without weights."""
    if not card.tensors:
        raise Incompatible(
            f"{card.path}: only a vocabulary, without the weights of a model",
            hint="give the GGUF file of the model itself",
        )
    if card.architecture not in ARCHITECTURES:
        raise unknown(card.path, "architecture", card.architecture)
    head = card.metadata.get(f"{card.architecture}.wkv.head_size")
    if card.architecture in TIME_MIX and isinstance(head, int) and head % TIME_MIX_STEP:
        raise Incompatible(
            f"{card.path}: its heads have {head} elements, and the engine computes those of {card.architecture} "
            f"{TIME_MIX_STEP} at a time",
            hint="take another model: dsr list --catalog",
        )
    tokenizer, pre = card.metadata.get("tokenizer.ggml.model"), card.metadata.get("tokenizer.ggml.pre")
    if tokenizer not in TOKENIZERS:
        raise unknown(card.path, "tokenizer", str(tokenizer))
    if tokenizer in _WITH_PRE_TOKENIZER and pre and pre not in PRE_TOKENIZERS:
        raise unknown(card.path, "pre-tokenizer", str(pre))


def check_answers(card: ModelCard) -> None:
    """Raise Incompatible for what `check_known` refuses, and for a model that writes no answers."""
    check_known(card)
    if card.architecture in _NO_ANSWERS:
        raise Incompatible(
            f"{card.path}: {_NO_ANSWERS[card.architecture]}",
            hint="to see models that chat: dsr list --catalog",
        )
    if _lacks_vocabulary(card):
        raise Incompatible(
            f"{card.path}: {_NO_VOCABULARY}", hint="take a conversion of the model that has its tokenizer"
        )


def no_vectors(card: ModelCard) -> str | None:
    """Why a model that the engine knows gives no vectors of texts; None if its architecture can."""
    if _lacks_vocabulary(card):
        return _NO_VOCABULARY
    if card.architecture in _TRANSLATES:
        return "a model that translates, of which dsr cannot use the encoder alone"
    return None if card.architecture in ENCODERS else _NO_ANSWERS.get(card.architecture)


def _lacks_vocabulary(card: ModelCard) -> bool:
    return card.metadata.get("tokenizer.ggml.model") in WITHOUT_VOCABULARY


def unknown(path: Path, what: str, name: str) -> Incompatible:
    """The error for a sound file whose architecture, tokenizer or pre-tokenizer the engine lacks."""
    return Incompatible(
        f"{path}: {_ENGINE} does not know its {what}, '{quoted_name(name)}'; the file itself is sound",
        hint="update dsr for a newer engine, or take another model: dsr list --catalog",
    )
