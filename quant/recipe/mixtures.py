"""llama.cpp's standard mixtures (Q4_K_M and so on) as a pure function from tensors to types.

Facts from src/llama-quant.cpp of the engine's release. Tensors are looked at in the order in which its loader sorts
them, since some rules count: by layer, then by name. Left out are rules for the single architectures falcon and
glm5-next.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quant.gguf.writer import integers
from quant.plan import ORIGINAL_TYPES, PlainType, QuantPlan, TensorPlan, make_plan, plain_type, planned
from quant.recipe.overrides import NONE, Overrides, check_used
from quant.sources.source import Source, TensorSpec
from runtime.base.errors import UsageError
from runtime.gguf.types import BY_NAME


@dataclass(frozen=True, slots=True)
class Mixture:
    """`base` is the type of all tensors that no rule names, `file_type` the number of llama_ftype (llama.h)."""

    name: str
    base: str
    file_type: int


_TABLE = (
    Mixture("f32", "F32", 0),
    Mixture("f16", "F16", 1),
    Mixture("q4_0", "Q4_0", 2),
    Mixture("q4_1", "Q4_1", 3),
    Mixture("q8_0", "Q8_0", 7),
    Mixture("q5_0", "Q5_0", 8),
    Mixture("q5_1", "Q5_1", 9),
    Mixture("q2_k", "Q2_K", 10),
    Mixture("q3_k_s", "Q3_K", 11),
    Mixture("q3_k_m", "Q3_K", 12),
    Mixture("q3_k_l", "Q3_K", 13),
    Mixture("q4_k_s", "Q4_K", 14),
    Mixture("q4_k_m", "Q4_K", 15),
    Mixture("q5_k_s", "Q5_K", 16),
    Mixture("q5_k_m", "Q5_K", 17),
    Mixture("q6_k", "Q6_K", 18),
    Mixture("iq2_xxs", "IQ2_XXS", 19),
    Mixture("iq2_xs", "IQ2_XS", 20),
    Mixture("iq3_xs", "IQ3_S", 22),
    Mixture("iq3_xxs", "IQ3_XXS", 23),
    Mixture("iq1_s", "IQ1_S", 24),
    Mixture("iq4_nl", "IQ4_NL", 25),
    Mixture("iq3_s", "IQ3_S", 26),
    Mixture("iq3_m", "IQ3_S", 27),
    Mixture("iq2_s", "IQ2_XS", 28),
    Mixture("iq2_m", "IQ2_S", 29),
    Mixture("iq4_xs", "IQ4_XS", 30),
    Mixture("iq1_m", "IQ1_M", 31),
    Mixture("bf16", "BF16", 32),
)
MIXTURES = {mixture.name: mixture for mixture in _TABLE}
_ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}

_LOW = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m"})
_LOW_UPPER = frozenset({"iq2_s", "iq2_m"})
_OUTPUT_OF_EIGHT = frozenset(
    {"q2_k", "q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m", "iq3_xs", "iq3_xxs", "iq3_s", "iq3_m", "iq4_nl", "iq4_xs"}
)

# Parts of names of weights that are small, or that quantizing ruins.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj"
    r"|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight"
    r"|indexer\.[kq]_proj\.weight|time_mix_(?:first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    r"|attn_rel_b\.weight|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd"
    r"|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)
# The first part found in a name is the tensor's category. Fused and compressed keys and values count as values.
_CATEGORIES = (
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"),
    ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)
_PLAIN: dict[str, PlainType] = {"F64": "f32", "F32": "f32", "F16": "f16"}
# Eighty layers of these have attn_v an eighth as large as attn_q, so that it gets more bits at no cost worth a word.
_LARGE = frozenset({("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)})


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of a model that the rules use. `layers` counts all, `heads` and `kv_heads` are those of the first."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    experts: int = 0

    @property
    def grouped(self) -> bool:
        """Whether at least four heads share a key and value."""
        return self.kv_heads > 0 and self.heads // self.kv_heads >= 4

    @property
    def large(self) -> bool:
        """llama.cpp's class of 70 B models."""
        llama = (self.architecture, self.layers) == ("llama", 80) and self.heads != self.kv_heads
        return llama or (self.architecture, self.layers) in _LARGE


def facts_of(source: Source) -> ModelFacts:
    """The facts in a source's metadata."""
    architecture = source.architecture
    wanted = {"block_count", "attention.head_count", "attention.head_count_kv", "expert_count"}
    keys = {f"{architecture}.{name}": name for name in wanted}
    found = {keys[entry.key]: integers(entry)[:1] for entry in source.metadata if entry.key in keys}
    first = {name: values[0] for name, values in found.items() if values}
    heads = first.get("attention.head_count", 0)
    return ModelFacts(
        architecture=architecture,
        layers=first.get("block_count", 0),
        heads=heads,
        kv_heads=first.get("attention.head_count_kv", heads),
        experts=first.get("expert_count", 0),
    )


def mixture(name: str) -> Mixture:
    """The mixture called `name`, in any case. Raises UsageError."""
    key = name.lower()
    found = MIXTURES.get(_ALIASES.get(key, key))
    if found is None:
        raise UsageError(f"{name!r} is no standard mixture", hint=f"one of {', '.join(MIXTURES)}")
    return found


def standard(name: str, source: Source, overrides: Overrides = NONE) -> QuantPlan:
    """The plan of llama-quantize for the mixture `name`: same types, same order, same metadata, so the same file.

    Raises UsageError for overrides that change nothing."""
    chosen = mixture(name)
    check_used(overrides, [tensor.name for tensor in source.tensors if quantizable(tensor)])
    weighted = source.importance is not None
    types = assign(chosen, source.tensors, facts_of(source), importance=weighted, overrides=overrides)
    return make_plan(types, source, chosen.file_type)


def unquantized(source: Source) -> QuantPlan:
    """Returns the plan of a file that is not quantized: each tensor keeps its type."""
    tensors = [
        planned(each, kept_type(each), "as the source has it") for each in sorted(source.tensors, key=engine_order)
    ]
    return make_plan(tensors, source, file_type_of(tensors))


def file_type_of(tensors: Iterable[TensorPlan]) -> int:
    """The llama_ftype by which readers name a file of these tensors: that of the type with the most weights."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.target] += tensor.parameters
    common = weights.most_common(1)
    numbers = {mixture.base: mixture.file_type for mixture in reversed(MIXTURES.values())}
    return numbers.get(common[0][0], 0) if common else 0


def assign(
    chosen: Mixture,
    tensors: Sequence[TensorSpec],
    facts: ModelFacts,
    *,
    importance: bool,
    overrides: Overrides = NONE,
) -> tuple[TensorPlan, ...]:
    """Each tensor in its type, in the engine's order. Rules that count do not count tensors with a named type."""
    categories = [category_of(tensor.name) for tensor in tensors]
    rules = _Rules(
        chosen, facts, importance, tied="output" not in categories, attention_values=categories.count("attn_v")
    )

    def decide(tensor: TensorSpec) -> TensorPlan:
        return overridden(tensor, overrides) or rules.plan(tensor, pure=overrides.pure)

    return tuple(decide(tensor) for tensor in sorted(tensors, key=engine_order))


def overridden(tensor: TensorSpec, overrides: Overrides) -> TensorPlan | None:
    """The plan of a tensor whose type the user named, or which keeps its type; None for all others."""
    if not quantizable(tensor):
        return None
    if overrides.keeps(tensor.name):
        return planned(tensor, kept_type(tensor), "--leave-output-tensor")
    named = overrides.named(tensor.name)
    return None if named is None else planned(tensor, named.type, f"--tensor-type {named.pattern}")


def engine_order(tensor: TensorSpec) -> tuple[int, str]:
    """The order of llama.cpp's loader: outside of layers first, then by layer; by name within."""
    return -1 if tensor.layer is None else tensor.layer, tensor.name


def quantizable(tensor: TensorSpec) -> bool:
    """Whether a tensor may have a quantized type: matrices of weights that are neither tiny nor delicate."""
    matrix = any(length > 1 for length in tensor.shape[1:])
    return matrix and tensor.name.endswith("weight") and _KEPT.search(tensor.name) is None


def kept_type(tensor: TensorSpec) -> str:
    """The type of a tensor that is not quantized: the source's, or what a conversion makes of it."""
    if tensor.stored not in ORIGINAL_TYPES and tensor.stored in BY_NAME:
        return tensor.stored
    return plain_type(tensor, _PLAIN.get(tensor.stored, "bf16"))


def category_of(name: str) -> str:
    """Returns the category of a tensor for the rules: "output", "token_embd", "attn_v", ..., or "other"."""
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "token_embd"
    return next((category for part, category in _CATEGORIES if part in name), "other")


class _Rules:
    """One pass over the tensors of a model. It counts each category, because some rules use the count."""

    def __init__(
        self, chosen: Mixture, facts: ModelFacts, importance: bool, *, tied: bool, attention_values: int
    ) -> None:
        self._mixture = chosen
        self._name = chosen.name
        self._facts = facts
        self._importance = importance
        self._tied = tied
        self._seen = {"attn_v": 0, "ffn_down": 0, "ffn_gate": 0, "ffn_up": 0}
        self._attention_values = attention_values

    def plan(self, tensor: TensorSpec, *, pure: bool = False) -> TensorPlan:
        if not quantizable(tensor):
            return planned(tensor, kept_type(tensor), "not quantized")
        base = self._mixture.base
        if base in ORIGINAL_TYPES:
            kept = tensor.stored == "MXFP4"  # published so: llama.cpp's converter carries it over, too
            return planned(tensor, tensor.stored if kept else base, "as it is" if kept else self._name)
        if pure:
            return planned(tensor, base, f"{self._name}: --pure")
        category = category_of(tensor.name)
        choice = self._choose(category, tensor) or base
        if category in self._seen:
            self._seen[category] += 1
        return planned(tensor, choice, self._name if choice == base else f"{self._name}: {category}")

    def _choose(self, category: str, tensor: TensorSpec) -> str | None:
        """The type that a rule names; None leaves the base."""
        if category == "output" or (category == "token_embd" and self._tied):
            return self._output(tensor)
        if category == "token_embd":
            return self._embedding()
        if self._name in _LOW:
            return self._low(category)
        match category:
            case "attn_v":
                return self._attn_v()
            case "attn_k" if self._facts.experts == 8:
                return "Q8_0"
            case "attn_k" | "attn_q":
                return {"iq3_xs": "IQ3_XXS", "iq3_xxs": "IQ2_S"}.get(self._name)
            case "attn_output":
                return self._attn_output()
            case "ffn_down":
                return self._ffn_down(self._layer(category, tensor))
            case "ffn_gate" | "ffn_up" if self._name == "iq3_xs":
                layer, layers = self._layer(category, tensor), self._facts.layers
                return "IQ3_XXS" if layers // 8 <= layer < 7 * layers // 8 else None
        return None

    def _output(self, tensor: TensorSpec) -> str | None:
        base = self._mixture.base
        if tensor.row_length % BY_NAME[base].block:
            return "Q8_0"
        if self._name in _LOW or self._name == "iq3_xxs":
            return "Q5_K"
        return None if base == "Q8_0" else "Q6_K"

    def _embedding(self) -> str | None:
        if self._name in _LOW_UPPER or self._name == "iq3_xxs":
            return "IQ3_S"
        return "Q2_K" if self._name in _LOW else None

    def _low(self, category: str) -> str | None:
        """One and two bits."""
        raised = "IQ3_S" if self._name in _LOW_UPPER else "Q2_K"
        experts = self._facts.experts
        match category:
            case "attn_v":
                return "Q4_K" if self._facts.grouped or experts >= 4 else raised
            case "attn_k" if experts == 8:
                return "Q4_K"
            case "ffn_down" if self._seen["ffn_down"] < self._facts.layers // 8:
                return raised
            case "attn_output" if experts == 8:
                return "Q5_K"
            case "attn_output":
                return {"iq1_s": "IQ2_XXS", "iq1_m": "IQ2_XXS", "iq2_s": "IQ3_S", "iq2_m": "IQ3_S"}.get(self._name)
        return None

    def _attn_v(self) -> str | None:
        choice = self._attn_v_of_any()
        if self._facts.large and (choice or self._mixture.base) in ("Q3_K", "Q4_K"):
            choice = "Q5_K"
        return "Q8_0" if self._facts.experts == 8 else choice

    def _attn_v_of_any(self) -> str | None:
        index, grouped = self._seen["attn_v"], self._facts.grouped
        match self._name:
            case "q2_k":
                return "Q4_K" if grouped else "Q3_K"
            case "iq3_xxs":
                return "Q4_K" if grouped else None if self._importance else "IQ3_S"
            case "iq3_xs" | "iq3_s" if grouped:
                return "Q4_K"
            case "iq3_m":
                return "Q4_K"
            case "q3_k_m":
                return "Q5_K" if index < 2 else "Q4_K"
            case "q3_k_l":
                return "Q5_K"
            case "iq4_nl" | "iq4_xs" if grouped:
                return "Q5_K"
            case "q4_k_m" | "q5_k_m" if more_bits(index, self._attention_values):
                return "Q6_K"
            case "q4_k_s" if index < 4:
                return "Q5_K"
        return None

    def _attn_output(self) -> str | None:
        if self._facts.experts == 8:
            return "Q5_K" if self._name in _OUTPUT_OF_EIGHT else None
        raised = {"q2_k": "Q3_K", "iq3_xxs": "IQ3_S", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K", "iq3_m": "Q4_K"}
        return raised.get(self._name)

    def _ffn_down(self, layer: int) -> str | None:
        layers = self._facts.layers
        early = layer < layers // 8
        match self._name:
            case "q2_k":
                return "Q3_K"
            case "iq3_xxs" if not self._importance:
                return "Q4_K" if early else "Q3_K"
            case "q3_k_m":
                return "Q5_K" if layer < layers // 16 else "Q4_K"
            case "q3_k_l":
                return "Q5_K"
            case "iq3_m" if early or (self._facts.experts == 8 and more_bits(layer, layers)):
                return "Q4_K"
            case "q4_k_m" | "q5_k_m" if more_bits(layer, layers):
                return "Q6_K"
            case "q4_k_s" if early:
                return "Q5_K"
            case "iq4_nl" | "iq4_xs" if early and not self._importance:
                return "Q5_K"
            case "q4_0" | "q5_0" if early and self._importance:
                return {"q4_0": "Q4_1", "q5_0": "Q5_1"}[self._name]
        return None

    def _layer(self, category: str, tensor: TensorSpec) -> int:
        """Returns the layer: counted in a dense model, from the name in a mixture of experts."""
        if self._facts.experts <= 1:
            return self._seen[category]
        return engine_order(tensor)[0]


def more_bits(index: int, count: int) -> bool:
    """The first and the last eighth, and every third in between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
