"""YaRN, which scales rotary positions (RoPE) so that a text may be longer than the trained length. Pure.

YaRN (arXiv 2309.00071) divides the low frequencies of RoPE by a factor, keeps the high ones, and sharpens the attention
by 1 + 0.1 ln(factor) per query and key. llama.cpp computes it (ggml_rope_yarn in ggml/src/ggml-cpu/ops.cpp), and sets
the sharpening itself (src/llama-context.cpp).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtime.base.errors import UsageError
from runtime.gguf.card import ModelCard

MOST_FACTOR = 64.0  # the paper tries 32; the largest of a vendor is 40 (DeepSeek V3)

# Architectures without rotary positions: LLAMA_ROPE_TYPE_NONE of llama_model_rope_type (src/llama-model.cpp).
WITHOUT_ROPE = frozenset(
    """
    gpt2 gptj mpt refact bloom mamba mamba2 jamba jais rwkv6 rwkv6qwen2 rwkv7 arwkv7 nemotron_h nemotron_h_moe
    kimi-linear kimi-k3 glm5-next t5
    """.split()  # noqa: SIM905
)
# Architectures that rotate only in layers with a window: `is_swa` before ggml_rope_ext in src/models/. A window never
# leaves the trained length, and the other layers have no positions to scale.
_ROPE_IN_WINDOWS = frozenset({"cohere2", "cohere2moe", "exaone-moe", "maple", "muse-glimmer"})
_EXAONE4_WITH_WINDOWS = 64  # layers; src/models/exaone4.cpp tells the 32B model by them
# Granite's switch for rotary positions: `rope_finetuned` in src/models/granite.cpp; Granite 4 hybrids turn it off.
_ROPE_SWITCHED = frozenset({"granite", "granitemoe", "granitehybrid", "graniteswitch"})
# Tensors with a factor for each frequency: Llama 3.1, and LongRoPE.
_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True, slots=True)
class Yarn:
    """Positions `factor` times as dense as in the training with texts of `original` tokens. Raises UsageError."""

    factor: float
    original: int

    def __post_init__(self) -> None:
        if not 1 < self.factor <= MOST_FACTOR:
            raise UsageError(f"the factor of YaRN is above 1 and at most {MOST_FACTOR:g}, not {self.factor:g}")
        if not 1 <= self.original < 2**31:
            raise UsageError(f"a model was trained with 1 to {2**31 - 1} tokens, not {self.original}")

    @property
    def reach(self) -> int:
        """The most tokens of one text, answer included."""
        return min(int(self.original * self.factor), 2**31 - 1)


def yarn_of_header(card: ModelCard) -> Yarn | None:
    """The YaRN in the file's own metadata, which the engine applies by default; None without one."""
    kind, factor = _scaling(card)
    original = card.metadata.get(f"{card.architecture}.rope.scaling.original_context_length")
    if kind != "yarn" or type(original) is not int or original < 1 or not 1 < factor <= MOST_FACTOR:
        return None
    return Yarn(factor, original)


def why_not_yarn(card: ModelCard) -> str | None:
    """Why YaRN cannot reach beyond the trained length of this model; None where it can."""
    if card.architecture in WITHOUT_ROPE:
        return f"{card.architecture} has no rotary positions (RoPE) to scale"
    finetuned = card.metadata.get(f"{card.architecture}.rope.scaling.finetuned")
    if card.architecture in _ROPE_SWITCHED and finetuned is False:
        return "its file turns rotary positions (RoPE) off, so there are none to scale"
    exaone4 = card.architecture == "exaone4" and card.layers - card.nextn_layers == _EXAONE4_WITH_WINDOWS
    if card.architecture in _ROPE_IN_WINDOWS or exaone4:
        return "its layers without a sliding window have no rotary positions (RoPE) to scale"
    own = yarn_of_header(card)
    if own is not None and own.reach > card.context_length:
        return None
    kind, factor = _scaling(card)
    if kind != "none" and factor != 1:
        return f"its {card.context_length} tokens already include the scaling of its file ({kind}, factor {factor:g})"
    if any(tensor.name.endswith(_FACTORS) for tensor in card.tensors):
        return f"its {card.context_length} tokens already include a scaling: the file has a factor for each frequency"
    return None


def _scaling(card: ModelCard) -> tuple[str, float]:
    """Kind and factor of the scaling in the header. As in the engine, a factor without a kind is linear."""
    prefix = f"{card.architecture}.rope"
    kind = card.metadata.get(f"{prefix}.scaling.type", "linear")
    for key in ("scaling.factor", "scale_linear"):
        factor = card.metadata.get(f"{prefix}.{key}")
        if isinstance(factor, int | float) and factor and math.isfinite(factor):
            return str(kind), float(factor)
    return str(kind), 1.0
