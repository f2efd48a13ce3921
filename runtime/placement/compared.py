"""Which architectures the formulas of memory know. Pure."""

from __future__ import annotations

from runtime.gguf.card import ModelCard

# Weights and caches of these were compared with the engine's own breakdown, to the byte (tests/peers/breakdown.py).
COMPARED = frozenset(
    """
    afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bitnet bloom chameleon chatglm
    codeshell cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4
    dots1 dots3note ernie4_5 ernie4_5-moe exaone exaone-moe exaone4 falcon falcon-h1 gemma gemma2 gemma3 gemma3n
    gemma4 glm-dsa glm4 glm4moe glm5-next gpt-oss gpt2 gptneox granite granite_swa granitehybrid granitemoe
    graniteswitch grok grovemoe hrm_text hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 hy_v4 internlm2 jais jais2 jamba
    kimi-k3 kimi-linear laguna lfm2 lfm2moe llama llama4 maincoder mamba mamba2 maple mellum mimo2 minicpm minicpm3
    minimax-01 minimax-m2 minimax-m3 mistral3 mistral4 mpt muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe
    olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 plamo3 qwen qwen2 qwen2moe
    qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe qwen4exp refact rwkv6 rwkv7 seed_oss
    smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 step35 talkie xverse
    """.split()  # noqa: SIM905
)
# How many times the estimate the engine's working buffers were at most, where more than a tenth was missing.
_LARGER_BUFFERS = {
    "cogvlm": 2.5, "glm5-next": 5.4, "grok": 19, "hy_v4": 1.3, "minimax-01": 2.2,
}  # fmt: skip
SKETCH = "sketch"  # a model of the catalogue, whose header is not known


def estimate_note(card: ModelCard) -> str | None:
    """How the memory of an architecture that the formulas do not know well is estimated; None for the others."""
    if times := _LARGER_BUFFERS.get(card.architecture):
        return (
            f"the working buffers of {card.architecture} are estimated roughly: in a comparison the engine took up to "
            f"{times:g} times as much"
        )
    if card.architecture == SKETCH and card.metadata:
        return "the catalogue says which layers cache how much; weights are spread evenly over the layers"
    if card.architecture == SKETCH:
        return (
            "the cache is estimated as that of full attention in each layer: the catalogue does not say which layers "
            "have a window or a recurrent state, and those take less"
        )
    if card.architecture in COMPARED:
        return None
    return (
        f"dsr's formulas were not compared with the engine for {card.architecture}: the cache is estimated as keys and "
        "values of each layer, or as the state that the file describes; the buffers as those of Llama"
    )
